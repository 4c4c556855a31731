-- Closes tasks. A closed task keeps its first result, except a failed task that another delivery of its message has
-- stored. Returns the number of callbacks dropped because too many bytes wait.
local open_key = KEYS[1]
local running_key = KEYS[2]
local failed_key = KEYS[3]
local ended_key = KEYS[4]
local callback_due_key = KEYS[5]
local callback_bytes_key = KEYS[6]
local callback_counts_key = KEYS[7]
local callback_oldest_key = KEYS[8]
local open_by_collection_key = KEYS[9]
local batch_queue_of_key = KEYS[10]
local batch_ends_key = KEYS[11]
local deferred_key = KEYS[12]
local deferred_by_host_key = KEYS[13]
local task_prefix = ARGV[1]
local callback_ends_prefix = ARGV[2]
local callback_delivery_prefix = ARGV[3]
local closed_channel = ARGV[4]
local finished_keep_s = tonumber(ARGV[5])
local failed_keep_s = tonumber(ARGV[6])
local max_callback_bytes = tonumber(ARGV[7])
local delivery_size = tonumber(ARGV[8])
local linger_ms = tonumber(ARGV[9])
local batch_linger_ms = tonumber(ARGV[10])
local batch_queue = ARGV[11]
local ended_fields = ARGV[12]
local default_collection = ARGV[13]
local batch_prefix = ARGV[14]
local rate_window_ms = tonumber(ARGV[15])
local ended_tasks_prefix = ARGV[16]
local results_from = 17 -- of each task: id, state, code, error, warning ('' for none)

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "expire.lua"
--- @include "add_callback.lua"
--- @include "open_tasks.lua"
--- @include "deferred_tasks.lua"
--- @include "batch_ends.lua"
--- @include "ended_tasks.lua"

local now, ended, closed, batches, dropped = now_ms(), {}, {}, {}, 0
for i = results_from, #ARGV, 5 do
  local id, state, code, error_text, warning = unpack(ARGV, i, i + 4)
  local key = task_prefix .. id
  local previous, callback, remembered, collection, batch, uncounted, previous_code, host = unpack(redis.call(
    'HMGET', key, 'state', 'callback', 'remembered', 'collection', 'batch', 'uncounted', 'code', 'host'))
  local is_stored_now = previous == 'failed' and (state == 'succeeded' or state == 'superseded')
  if is_stored_now then
    redis.call('HDEL', key, 'code', 'error')
    redis.call('ZREM', failed_key, id)
  end
  if previous == 'pending' or previous == 'running' or is_stored_now then
    local outcome = state .. ':' .. (code ~= '' and code or warning)
    ended[outcome] = (ended[outcome] or 0) + 1
    redis.call('HSET', key, 'state', state, 'finished', now)
    if warning ~= '' then redis.call('HSET', key, 'warning', warning) end
    if state == 'failed' then
      redis.call('HSET', key, 'code', code, 'error', error_text)
      redis.call('ZADD', failed_key, now, id)
      expire(key, failed_keep_s, remembered, now)
    else
      -- The job may contain much metadata, and no retry needs it.
      redis.call('HDEL', key, 'job')
      expire(key, finished_keep_s, remembered, now)
      list_ended(state, id, now)
    end
    if batch then
      local changes = changes_of(batches, batch)
      if previous == 'running' then add_state(changes, 'running', nil, -1, uncounted) end
      if is_stored_now then
        add_state(changes, 'failed', previous_code, -1, uncounted)
      else
        changes.open = (changes.open or 0) - 1
      end
      add_state(changes, state, code, 1, uncounted)
    end
    if callback then dropped = dropped + add_callback(id, callback, now) end
  end
  remove_deferred(id, host)
  redis.call('HDEL', key, 'next')
  collection = collection or default_collection
  closed[collection] = (closed[collection] or 0) + redis.call('ZREM', open_key, id)
  redis.call('ZREM', running_key, id)
  redis.call('PUBLISH', closed_channel, id)
end
for outcome, count in pairs(ended) do redis.call('HINCRBY', ended_key, outcome, count) end
for collection, count in pairs(closed) do count_open(collection, -count) end
-- Workers of an earlier version do not count: correct the numbers when none is open.
if redis.call('EXISTS', open_key) == 0 then
  redis.call('DEL', open_by_collection_key, batch_queue_of_key, deferred_key, deferred_by_host_key)
end
return dropped + count_ends(batches, now)
