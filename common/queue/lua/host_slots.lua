-- Slots of a host: one member a download, by the time until which it is leased.
local function keep_slot(key, id, now, lease_ms)
  redis.call('ZADD', key, now + lease_ms, id)
  redis.call('PEXPIRE', key, lease_ms)
end

local function slots_in_use(key, now, lease_ms)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  -- A lease longer than any was given before the clock was set back.
  redis.call('ZREMRANGEBYSCORE', key, '(' .. now + lease_ms, '+inf')
  return redis.call('ZCARD', key)
end
