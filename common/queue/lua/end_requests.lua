-- Ends up to `limit` requests whose lease has expired: their processes died. Returns their number. Workers of an
-- earlier version do not count in batches: if no task at all is open, the open batches get the number of the counted
-- tasks.
local callback_due_key = KEYS[1]
local callback_bytes_key = KEYS[2]
local callback_counts_key = KEYS[3]
local callback_oldest_key = KEYS[4]
local batch_ends_key = KEYS[5]
local batch_requests_key = KEYS[6]
local open_key = KEYS[7]
local task_prefix = ARGV[1]
local batch_prefix = ARGV[2]
local callback_ends_prefix = ARGV[3]
local callback_delivery_prefix = ARGV[4]
local finished_keep_s = tonumber(ARGV[5])
local failed_keep_s = tonumber(ARGV[6])
local max_callback_bytes = tonumber(ARGV[7])
local delivery_size = tonumber(ARGV[8])
local linger_ms = tonumber(ARGV[9])
local batch_linger_ms = tonumber(ARGV[10])
local batch_queue = ARGV[11]
local ended_fields = ARGV[12]
local rate_window_ms = tonumber(ARGV[13])
local limit = tonumber(ARGV[14])

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "batch_ends.lua"
--- @include "batch_requests.lua"

local now = now_ms()
local expired = redis.call('ZRANGEBYSCORE', batch_requests_key, '-inf', now, 'LIMIT', 0, limit)
for _, lease in ipairs(expired) do
  local batch, request = string.match(lease, '^(%S+) (%S+)$')
  remove_request(batch, request)
  end_batch(batch, now)
end
local left = redis.call('EXISTS', open_key) == 0 and
  redis.call('ZRANGEBYSCORE', batch_ends_key, '+inf', '+inf', 'LIMIT', 0, limit) or {}
for _, member in ipairs(left) do
  local batch = string.match(member, ' (%S+)$')
  local key = batch_prefix .. batch
  if redis.call('HDEL', key, 'open') == 1 then
    redis.call('HDEL', key, 'running')
    redis.call('HSET', key, 'total', ended_in_batch(key))
    end_batch(batch, now)
  end
end
return #expired
