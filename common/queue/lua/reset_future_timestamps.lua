-- Sets to now the time of open tasks that were enqueued after now: the clock was set back since, and until it has
-- caught up they would never be stale. Returns how many.
local open_key = KEYS[1]
local limit = tonumber(ARGV[1])

--- @include "../../redis/lua/now_ms.lua"

local now = now_ms()
local ids = redis.call('ZRANGEBYSCORE', open_key, '(' .. now, '+inf', 'LIMIT', 0, limit)
for _, id in ipairs(ids) do redis.call('ZADD', open_key, now, id) end
return #ids
