-- Functions that claim_delivery.lua and report_delivery.lua share.
--- @include "callback_entries.lua"

local function read_entry(entry)
  local due, ended, id = string.match(entry, '^(%d+) (%d+) (%S+) ')
  return tonumber(due), tonumber(ended), id
end

-- Returns the key of the hash of an entry's task or batch.
local function subject_of(id)
  if string.sub(id, 1, #batch_entry) == batch_entry then return batch_prefix .. string.sub(id, #batch_entry + 1) end
  return task_prefix .. id
end

-- Returns the number of the first entries that one delivery has: those of tasks, or one of a batch.
local function delivery_length(entries)
  for i, entry in ipairs(entries) do
    local _, _, id = read_entry(entry)
    if string.sub(id, 1, #batch_entry) == batch_entry then return math.max(1, i - 1) end
  end
  return #entries
end

-- Writes the field `called` of these entries' tasks and batches, except those that were opened again since.
local function set_callback_field(entries, text)
  for _, entry in ipairs(entries) do
    local _, ended, id = read_entry(entry)
    local key = subject_of(id)
    if tonumber(redis.call('HGET', key, 'finished') or 0) == ended then
      redis.call('HSET', key, 'called', text)
    end
  end
end

-- Removes these entries, the first of their URL, and counts them under `state`.
local function remove(url, entries, state)
  local bytes, receiver = 0, receiver_of(url)
  for _, entry in ipairs(entries) do bytes = bytes + entry_bytes(entry, url) end
  redis.call('LTRIM', callback_ends_prefix .. url, #entries, -1)
  redis.call('HINCRBY', callback_counts_key, 'pending', -#entries)
  redis.call('HINCRBY', callback_counts_key, state, #entries)
  redis.call('HINCRBY', callback_bytes_key, '', -bytes)
  if redis.call('HINCRBY', callback_bytes_key, receiver, -bytes) <= 0 then
    redis.call('HDEL', callback_bytes_key, receiver)
  end
end

-- Schedules the next delivery to a URL, not before `soonest`; returns false if no callback waits for the URL.
local function schedule(url, now, soonest)
  local waiting = redis.call('LLEN', callback_ends_prefix .. url)
  if waiting == 0 then
    redis.call('ZREM', callback_due_key, url)
    redis.call('ZREM', callback_oldest_key, url)
    redis.call('DEL', callback_delivery_prefix .. url)
    return false
  end
  local due, ended = read_entry(redis.call('LINDEX', callback_ends_prefix .. url, 0))
  redis.call('ZADD', callback_oldest_key, ended, url)
  redis.call('ZADD', callback_due_key, math.max(waiting >= delivery_size and now or due, soonest), url)
  return true
end

-- Makes `count` URLs due that wait for a slot of the receiver, in order of their waiting. Each released slot makes
-- another URL due, so a waiting URL costs no scans and is never lost.
local function admit(receiver, count, now)
  for _ = 1, count do
    local url = redis.call('ZPOPMIN', callback_waiting_prefix .. receiver)[1]
    if not url then return end
    redis.call('ZADD', callback_due_key, now, url)
  end
end
