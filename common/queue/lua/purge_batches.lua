-- Removes up to `limit` expired batches from the lists. Returns their number.
local batch_ends_key = KEYS[1]
local batch_prefix = ARGV[1]
local batches_prefix = ARGV[2]
local limit = tonumber(ARGV[3])

--- @include "../../redis/lua/now_ms.lua"

local expired = redis.call('ZRANGEBYSCORE', batch_ends_key, '-inf', now_ms(), 'LIMIT', 0, limit)
for _, member in ipairs(expired) do
  local collection, batch = string.match(member, '^(%S+) (%S+)$')
  redis.call('ZREM', batch_ends_key, member)
  redis.call('ZREM', batches_prefix .. collection, batch)
  redis.call('DEL', batch_prefix .. batch)
end
return #expired
