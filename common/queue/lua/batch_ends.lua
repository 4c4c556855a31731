-- Ends batches, within the script that ends their last task or request.
--- @include "batch_counts.lua"
--- @include "batch_rate.lua"
--- @include "expire.lua"
--- @include "add_callback.lua"

-- Ends a batch without open tasks and without requests that add to it. Its record is kept as long as its failed tasks
-- can be retried, and then as long as ended tasks are kept. Returns the number of dropped callbacks: 0 or 1.
local function end_batch(batch, now)
  local key = batch_prefix .. batch
  local collection, open, requests, finished, failed, remembered, callback = unpack(redis.call(
    'HMGET', key, 'collection', 'open', 'requests', 'finished', 'failed', 'remembered', 'callback'))
  if not collection or finished or open or requests then return 0 end
  redis.call('HSET', key, 'finished', now)
  expire(key, finished_keep_s + (failed and failed_keep_s or 0), remembered, now)
  redis.call('ZADD', batch_ends_key, now + redis.call('PTTL', key), collection .. ' ' .. batch)
  return callback and add_batch_callback(batch, callback, now) or 0
end

-- Applies changes to the counters of batches whose tasks have ended. Returns the number of dropped callbacks.
local function count_ends(changes_by_batch, now)
  local dropped = 0
  for batch, changes in pairs(changes_by_batch) do
    count_in_batch(batch, changes)
    note_rate(batch_prefix .. batch, now)
    dropped = dropped + end_batch(batch, now)
  end
  return dropped
end
