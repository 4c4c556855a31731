-- Opens failed tasks again. Returns the time, and the outcome and the queue of each task. An outcome is the state
-- before the call, 'unknown', 'late', 'emptied' or 'quota'. Only tasks with the outcome 'failed' are open now.
local open_key = KEYS[1]
local failed_key = KEYS[2]
local open_by_collection_key = KEYS[3]
local batch_queue_of_key = KEYS[4]
local deleted_collections_key = KEYS[5]
local task_prefix = ARGV[1]
local default_collection = ARGV[2]
local max_age_ms = tonumber(ARGV[3]) -- since the task was accepted
local max_open_in_collection = tonumber(ARGV[4]) -- -1 for no limit
local ids_from = 5

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "open_tasks.lua"
--- @include "deleted_collections.lua"

local function is_full(collection)
  local open = tonumber(redis.call('HGET', open_by_collection_key, collection)) or 0
  return max_open_in_collection >= 0 and open >= max_open_in_collection
end

local now, outcomes = now_ms(), {}
for i = ids_from, #ARGV do
  local id, key = ARGV[i], task_prefix .. ARGV[i]
  local state, accepted, queue, emptied, seq, collection = unpack(
    redis.call('HMGET', key, 'state', 'accepted', 'queue', 'emptied', 'seq', 'collection'))
  collection = collection or default_collection
  local outcome = state or 'unknown'
  if state == 'failed' and (now - accepted > max_age_ms or is_deleted(collection, seq)) then
    outcome = 'late'
  elseif state == 'failed' and emptied then
    outcome = 'emptied'
  elseif state == 'failed' and is_full(collection) then
    outcome = 'quota'
  elseif state == 'failed' then
    redis.call('HSET', key, 'state', 'pending')
    redis.call('HDEL', key, 'code', 'error', 'started', 'finished', 'unfinished', 'called', 'tries', 'faulty_since',
      'cause_code', 'cause')
    redis.call('PERSIST', key)
    redis.call('ZREM', failed_key, id)
    count_open(collection, redis.call('ZADD', open_key, now, id))
  end
  outcomes[#outcomes + 1], outcomes[#outcomes + 2] = outcome, queue or ''
end
return {now, outcomes}
