-- Notes the number of ended tasks at the begin of a window of time: two windows give the recent rate.
local function note_rate(key, now)
  local window_at, window_ended = unpack(redis.call('HMGET', key, 'window_at', 'window_ended'))
  if not window_at or now - window_at < rate_window_ms then return end
  redis.call('HSET', key, 'last_at', window_at, 'last_ended', window_ended,
    'window_at', now, 'window_ended', ended_in_batch(key))
end
