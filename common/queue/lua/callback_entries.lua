-- What the outbox's steps share. An entry is a text: when it is to be sent (ms), when the task ended (ms), its id, and
-- what the ledger held of it then as JSON, separated by spaces.

-- What an entry costs beside its own bytes: its URL is in three keys where no other entry has the same.
local function entry_bytes(entry, url)
  return #entry + 3 * #url + 512
end

-- The receiver of a callback: the URL's host and port.
local function receiver_of(url)
  return string.match(url, '^%a+://([^/]*)')
end

-- The text of a task's field `called`: state, attempts, when the next is (ms, 0 for none), and the last error.
local function called(state, attempts, next_ms, problem)
  return state .. ' ' .. attempts .. ' ' .. string.format('%.0f', next_ms) .. ' ' .. (problem or '')
end
