-- Slots of a host: a sorted set with one member per download, by the time at which its lease expires.
local function keep_slot(key, id, now, lease_ms)
  redis.call('ZADD', key, now + lease_ms, id)
  redis.call('PEXPIRE', key, lease_ms)
end

local function slots_in_use(key, now, lease_ms)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  -- A lease that lasts longer than `lease_ms` was acquired before the clock was set back.
  redis.call('ZREMRANGEBYSCORE', key, '(' .. now + lease_ms, '+inf')
  return redis.call('ZCARD', key)
end
