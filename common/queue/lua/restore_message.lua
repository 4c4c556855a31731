-- Moves an unacknowledged message to the head of its queue, unless it was acknowledged or delivered again meanwhile.
-- Returns whether it was moved.
local unacked_key = KEYS[1]
local unacked_index_key = KEYS[2]
local tag = ARGV[1]
local entry = ARGV[2] -- the message as the caller has read it
local queue = ARGV[3]
local message = ARGV[4]

--- @include "../../redis/lua/allow_oom.lua"

if redis.call('HGET', unacked_key, tag) ~= entry then return 0 end
redis.call('HDEL', unacked_key, tag)
redis.call('ZREM', unacked_index_key, tag)
-- Workers take messages from the right.
redis.call('RPUSH', queue, message)
return 1
