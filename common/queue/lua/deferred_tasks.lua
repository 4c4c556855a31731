-- Deferred tasks: pending tasks without a message that wait for their host, sorted by the time of the next try (ms). A
-- task that waits for a slot has no such time; its score is infinite.
local function count_deferred(host, change)
  if change ~= 0 and redis.call('HINCRBY', deferred_by_host_key, host, change) <= 0 then
    redis.call('HDEL', deferred_by_host_key, host)
  end
end

local function add_deferred(id, host, due)
  count_deferred(host or '', redis.call('ZADD', deferred_key, due, id))
end

local function remove_deferred(id, host)
  count_deferred(host or '', -redis.call('ZREM', deferred_key, id))
end
