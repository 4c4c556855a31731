-- Takes a lease that nobody holds. Returns false where somebody does.
local lease_key = KEYS[1]
local lease_ms = tonumber(ARGV[1])

--- @include "../../redis/lua/allow_oom.lua"

-- One that lasts longer than it can was given before the clock was set back.
if redis.call('PTTL', lease_key) > lease_ms then redis.call('DEL', lease_key) end
return redis.call('SET', lease_key, 1, 'NX', 'PX', lease_ms)
