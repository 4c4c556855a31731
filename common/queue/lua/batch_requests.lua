-- Requests that add to a batch: it does not end while one of them may add more. A request whose process died counts
-- until its lease expires (end_requests.lua).
local function lease_of(batch, request)
  return batch .. ' ' .. request
end

local function add_request(batch, request, expires)
  if redis.call('ZADD', batch_requests_key, expires, lease_of(batch, request)) == 1 then
    redis.call('HINCRBY', batch_prefix .. batch, 'requests', 1)
  end
end

local function keep_request(batch, request, expires)
  redis.call('ZADD', batch_requests_key, 'XX', expires, lease_of(batch, request))
end

local function remove_request(batch, request)
  if redis.call('ZREM', batch_requests_key, lease_of(batch, request)) == 0 then return end
  count_in_batch(batch, {requests = -1})
end
