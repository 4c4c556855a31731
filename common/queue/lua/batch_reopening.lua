-- Opens a batch that has ended: it has an open task again. The measurement of its rate starts again.
local function reopen_batch(batch)
  local key = batch_prefix .. batch
  if redis.call('HDEL', key, 'finished') == 0 then return end
  redis.call('HDEL', key, 'called', 'started', 'before', 'window_at', 'window_ended', 'last_at', 'last_ended')
  redis.call('PERSIST', key)
  redis.call('ZADD', batch_ends_key, '+inf', redis.call('HGET', key, 'collection') .. ' ' .. batch)
end
