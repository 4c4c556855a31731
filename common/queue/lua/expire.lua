-- Sets the expiry of a task's hash, not before `remembered` (ms): until then its idempotency key must find the task.
local function expire(key, keep_s, remembered, now)
  redis.call('EXPIRE', key, math.max(keep_s, math.ceil(((tonumber(remembered) or 0) - now) / 1000)))
end
