-- Counts tasks that begin to run, or are pending again for a negative `count`, within the script that changes their
-- state. The first begin of a batch starts the measurement of its rate.
local function count_begins(batch, uncounted, count, now)
  if not batch then return end
  local key = batch_prefix .. batch
  if not uncounted then count_in_batch(batch, {running = count}) end
  if count < 0 or redis.call('EXISTS', key) == 0 or redis.call('HSETNX', key, 'started', now) == 0 then return end
  local ended = ended_in_batch(key)
  redis.call('HSET', key, 'before', ended, 'window_at', now, 'window_ended', ended)
end
