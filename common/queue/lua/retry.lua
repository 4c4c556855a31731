-- Opens failed tasks again. Returns the time, and the outcome and the queue of each task. An outcome is the state
-- before the call, 'unknown', 'late', 'emptied', 'quota' or 'void' (its batch is cancelled). Only tasks with the
-- outcome 'failed' are open now.
local open_key = KEYS[1]
local failed_key = KEYS[2]
local open_by_collection_key = KEYS[3]
local batch_queue_of_key = KEYS[4]
local deleted_collections_key = KEYS[5]
local batch_ends_key = KEYS[6]
local task_prefix = ARGV[1]
local default_collection = ARGV[2]
local max_age_ms = tonumber(ARGV[3]) -- since the task was accepted
local max_open_in_collection = tonumber(ARGV[4]) -- -1 for no limit
local batch_prefix = ARGV[5]
local ids_from = 6

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "open_tasks.lua"
--- @include "deleted_collections.lua"
--- @include "batch_counts.lua"
--- @include "batch_cancelled.lua"
--- @include "batch_reopening.lua"

local function is_full(collection)
  local open = tonumber(redis.call('HGET', open_by_collection_key, collection)) or 0
  return max_open_in_collection >= 0 and open >= max_open_in_collection
end

local now, outcomes, batches = now_ms(), {}, {}
for i = ids_from, #ARGV do
  local id, key = ARGV[i], task_prefix .. ARGV[i]
  local state, accepted, queue, emptied, seq, collection, batch, uncounted, code = unpack(redis.call(
    'HMGET', key, 'state', 'accepted', 'queue', 'emptied', 'seq', 'collection', 'batch', 'uncounted', 'code'))
  collection = collection or default_collection
  local outcome = state or 'unknown'
  if state == 'failed' and (now - accepted > max_age_ms or is_deleted(collection, seq)) then
    outcome = 'late'
  elseif state == 'failed' and emptied then
    outcome = 'emptied'
  elseif state == 'failed' and batch and is_batch_cancelled(batch) then
    outcome = 'void'
  elseif state == 'failed' and is_full(collection) then
    outcome = 'quota'
  elseif state == 'failed' then
    redis.call('HSET', key, 'state', 'pending', 'retried', now)
    redis.call('HDEL', key, 'code', 'error', 'started', 'finished', 'unfinished', 'called', 'tries', 'faulty_since',
      'cause_code', 'cause')
    redis.call('PERSIST', key)
    redis.call('ZREM', failed_key, id)
    count_open(collection, redis.call('ZADD', open_key, now, id))
    if batch then
      local changes = changes_of(batches, batch)
      changes.open = (changes.open or 0) + 1
      add_state(changes, 'failed', code, -1, uncounted)
    end
  end
  outcomes[#outcomes + 1], outcomes[#outcomes + 2] = outcome, queue or ''
end
for batch, changes in pairs(batches) do
  count_in_batch(batch, changes)
  reopen_batch(batch)
end
return {now, outcomes}
