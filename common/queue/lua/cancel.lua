-- Cancels a pending task. Returns its state before the call; false if it is unknown.
local open_key = KEYS[1]
local ended_key = KEYS[2]
local callback_due_key = KEYS[3]
local callback_bytes_key = KEYS[4]
local callback_counts_key = KEYS[5]
local callback_oldest_key = KEYS[6]
local open_by_collection_key = KEYS[7]
local batch_queue_of_key = KEYS[8]
local deferred_key = KEYS[9]
local deferred_by_host_key = KEYS[10]
local task_prefix = ARGV[1]
local slots_prefix = ARGV[2]
local waiting_prefix = ARGV[3]
local callback_ends_prefix = ARGV[4]
local callback_delivery_prefix = ARGV[5]
local closed_channel = ARGV[6]
local finished_keep_s = tonumber(ARGV[7])
local max_callback_bytes = tonumber(ARGV[8])
local delivery_size = tonumber(ARGV[9])
local linger_ms = tonumber(ARGV[10])
local batch_linger_ms = tonumber(ARGV[11])
local batch_queue = ARGV[12]
local ended_fields = ARGV[13]
local default_collection = ARGV[14]
local id = ARGV[15]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "expire.lua"
--- @include "add_callback.lua"
--- @include "open_tasks.lua"
--- @include "deferred_tasks.lua"

local key, now = task_prefix .. id, now_ms()
local state, host, queue, callback, remembered, collection = unpack(
  redis.call('HMGET', key, 'state', 'host', 'queue', 'callback', 'remembered', 'collection'))
if state ~= 'pending' then return state end
redis.call('HSET', key, 'state', 'cancelled', 'finished', now)
redis.call('HDEL', key, 'job', 'next')
remove_deferred(id, host)
expire(key, finished_keep_s, remembered, now)
if callback then add_callback(id, callback, now) end
count_open(collection or default_collection, -redis.call('ZREM', open_key, id))
redis.call('HINCRBY', ended_key, 'cancelled:', 1)
if host then
  redis.call('ZREM', waiting_prefix .. queue .. ':' .. host, id)
  redis.call('ZREM', slots_prefix .. host, id)
end
redis.call('PUBLISH', closed_channel, id)
return state
