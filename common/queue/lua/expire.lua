-- Lets a task's hash expire, not before `remembered` (ms): so long its id has to be known.
local function expire(key, keep_s, remembered, now)
  redis.call('EXPIRE', key, math.max(keep_s, math.ceil(((tonumber(remembered) or 0) - now) / 1000)))
end
