-- Marks a task as running, and acquires a slot of its host if the slots are limited. Returns sequence number, job, host
-- ('' without a slot), request id, traceparent, collection, action, batch, 1 if the collection was deleted after the task
-- was accepted, 1 if its batch is cancelled, the number of begins without an end, including this one, and the later
-- deletions of selected images; false for a closed or unknown task; an empty list for a task that now waits for a slot.
local open_key = KEYS[1]
local running_key = KEYS[2]
local waiting_hosts_key = KEYS[3]
local deleted_collections_key = KEYS[4]
local deleted_images_key = KEYS[5]
local task_prefix = ARGV[1]
local slots_prefix = ARGV[2]
local waiting_prefix = ARGV[3]
local default_collection = ARGV[4]
local max_slots = tonumber(ARGV[5]) -- 0 for no limit
local slot_lease_ms = tonumber(ARGV[6])
local batch_prefix = ARGV[7]
local id = ARGV[8]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "host_slots.lua"
--- @include "deleted_collections.lua"
--- @include "deleted_images.lua"
--- @include "batch_counts.lua"
--- @include "batch_begin.lua"

local key, now = task_prefix .. id, now_ms()
local state, seq, job, host, queue, request_id, traceparent, collection, action, batch, uncounted = unpack(redis.call(
  'HMGET', key, 'state', 'seq', 'job', 'host', 'queue', 'request', 'trace', 'collection', 'action', 'batch', 'uncounted'))
if state ~= 'pending' and state ~= 'running' then return false end
collection = collection or default_collection
local deleted = is_deleted(collection, seq)
local cancelled = batch and redis.call('HEXISTS', batch_prefix .. batch, 'cancelled_at') == 1
local is_void = deleted or cancelled
if host and max_slots > 0 and not is_void then
  local slots_key, waiting_key = slots_prefix .. host, waiting_prefix .. queue .. ':' .. host
  if slots_in_use(slots_key, now, slot_lease_ms) >= max_slots and not redis.call('ZSCORE', slots_key, id) then
    redis.call('HSET', key, 'state', 'pending')
    redis.call('HDEL', key, 'started')
    redis.call('ZREM', running_key, id)
    redis.call('ZADD', open_key, now, id)
    redis.call('ZADD', waiting_key, seq, id)
    redis.call('SADD', waiting_hosts_key, host)
    if state == 'running' then count_begins(batch, uncounted, -1, now) end
    return {}
  end
  keep_slot(slots_key, id, now, slot_lease_ms)
  redis.call('ZREM', waiting_key, id)
end
redis.call('HSET', key, 'state', 'running', 'started', now)
redis.call('HINCRBY', key, 'attempts', 1)
if state == 'pending' then count_begins(batch, uncounted, 1, now) end
local unfinished = redis.call('HINCRBY', key, 'unfinished', 1)
redis.call('ZADD', running_key, now, id)
local slot_host = max_slots > 0 and not is_void and host or ''
return {
  seq, job, slot_host, request_id or '', traceparent or '', collection, action or '', batch or '', deleted and 1 or 0,
  cancelled and 1 or 0, unfinished, action and {} or deletions_after(collection, seq)}
