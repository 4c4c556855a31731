-- Functions that the outbox's scripts share. An entry is a text of four parts, separated by spaces: the time at which
-- it is due (ms), the time of the task's end (ms), the task's id, and the task's fields at its end as JSON. In the
-- entry of a batch, the id begins with `batch_entry`, which no id of a task does.
local batch_entry = 'batch:'

-- The memory of an entry: its bytes, an overhead, and its URL, which three keys contain.
local function entry_bytes(entry, url)
  return #entry + 3 * #url + 512
end

-- The receiver of a callback: the URL's host and port.
local function receiver_of(url)
  return string.match(url, '^%a+://([^/]*)')
end

-- The text of a task's field `called`: state, attempts, time of the next attempt (ms, 0 for none), and the last error.
local function callback_field(state, attempts, next_ms, problem)
  return state .. ' ' .. attempts .. ' ' .. string.format('%.0f', next_ms) .. ' ' .. (problem or '')
end
