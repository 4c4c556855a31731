-- Marks a running task as pending again. Its begin no longer counts as unfinished.
local open_key = KEYS[1]
local running_key = KEYS[2]
local task_prefix = ARGV[1]
local batch_prefix = ARGV[2]
local id = ARGV[3]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "batch_counts.lua"
--- @include "batch_begin.lua"

local key, now = task_prefix .. id, now_ms()
local state, batch, uncounted = unpack(redis.call('HMGET', key, 'state', 'batch', 'uncounted'))
if state ~= 'running' then return end
redis.call('HSET', key, 'state', 'pending')
redis.call('HDEL', key, 'started')
redis.call('HINCRBY', key, 'unfinished', -1)
redis.call('ZREM', running_key, id)
-- Its message is requeued at the end of the queue.
redis.call('ZADD', open_key, 'XX', now, id)
count_begins(batch, uncounted, -1, now)
