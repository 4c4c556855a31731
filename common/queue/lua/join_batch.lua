-- Begins a request that adds tasks to a batch, and creates the batch if it does not exist. Returns 'joined', or 'other'
-- if the batch belongs to another API key or collection, or 'cancelled'.
local batch_requests_key = KEYS[1]
local batch_ends_key = KEYS[2]
local batch_prefix = ARGV[1]
local batches_prefix = ARGV[2]
local lease_ms = tonumber(ARGV[3])
local batch = ARGV[4]
local request = ARGV[5]
local collection = ARGV[6]
local owner = ARGV[7] -- name of the API key, '' without keys
local request_id = ARGV[8] -- '' for none
local callback = ARGV[9] -- URL, '' for none

--- @include "../../redis/lua/now_ms.lua"
--- @include "batch_counts.lua"
--- @include "batch_requests.lua"

local key, now = batch_prefix .. batch, now_ms()
local its_collection, its_owner, cancelled, finished = unpack(
  redis.call('HMGET', key, 'collection', 'owner', 'cancelled_at', 'finished'))
if its_collection and (its_collection ~= collection or (its_owner or '') ~= owner) then return 'other' end
if cancelled then return 'cancelled' end
if not its_collection then
  redis.call('HSET', key, 'collection', collection, 'accepted', now)
  if owner ~= '' then redis.call('HSET', key, 'owner', owner) end
  if request_id ~= '' then redis.call('HSET', key, 'request', request_id) end
  redis.call('ZADD', batches_prefix .. collection, now, batch)
  redis.call('ZADD', batch_ends_key, '+inf', collection .. ' ' .. batch)
elseif finished and redis.call('PTTL', key) < 2 * lease_ms then
  redis.call('PEXPIRE', key, 2 * lease_ms)
  redis.call('ZADD', batch_ends_key, now + 2 * lease_ms, collection .. ' ' .. batch)
end
if callback ~= '' then redis.call('HSET', key, 'callback', callback) end
add_request(batch, request, now + lease_ms)
return 'joined'
