-- Sets future times of enqueueing of open tasks to now, because the clock was set back: with a future time a task would
-- not become stale. Returns the number of tasks.
local open_key = KEYS[1]
local limit = tonumber(ARGV[1])

--- @include "../../redis/lua/now_ms.lua"

local now = now_ms()
local ids = redis.call('ZRANGEBYSCORE', open_key, '(' .. now, '+inf', 'LIMIT', 0, limit)
for _, id in ipairs(ids) do redis.call('ZADD', open_key, now, id) end
return #ids
