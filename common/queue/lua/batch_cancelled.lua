-- Returns whether a client has cancelled the batch: its pending tasks end before they begin.
local function is_batch_cancelled(batch)
  return redis.call('HEXISTS', batch_prefix .. batch, 'cancelled_at') == 1
end
