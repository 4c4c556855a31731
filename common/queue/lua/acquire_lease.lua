-- Acquires a lease. Returns false if a process holds it.
local lease_key = KEYS[1]
local lease_ms = tonumber(ARGV[1])

--- @include "../../redis/lua/allow_oom.lua"

-- A lease that lasts longer than `lease_ms` was acquired before the clock was set back.
if redis.call('PTTL', lease_key) > lease_ms then redis.call('DEL', lease_key) end
return redis.call('SET', lease_key, 1, 'NX', 'PX', lease_ms)
