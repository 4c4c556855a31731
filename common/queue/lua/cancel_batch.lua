-- Marks a batch as cancelled unless it has ended: workers cancel its pending tasks instead of beginning them. Returns
-- whether the batch exists.
local batch_prefix = ARGV[1]
local batch = ARGV[2]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"

local key = batch_prefix .. batch
local collection, finished = unpack(redis.call('HMGET', key, 'collection', 'finished'))
if collection and not finished then redis.call('HSETNX', key, 'cancelled_at', now_ms()) end
return collection and 1 or 0
