-- Records the deletion of a collection. Returns 1 if a task that was accepted before it is running, else 0.
local running_key = KEYS[1]
local deleted_collections_key = KEYS[2]
local task_prefix = ARGV[1]
local default_collection = ARGV[2]
local collection = ARGV[3]
local seq = tonumber(ARGV[4]) -- of the deletion

--- @include "../../redis/lua/allow_oom.lua"

local last = tonumber(redis.call('ZSCORE', deleted_collections_key, collection)) or 0
if seq > last then redis.call('ZADD', deleted_collections_key, string.format('%.0f', seq), collection) end
for _, id in ipairs(redis.call('ZRANGE', running_key, 0, -1)) do
  local its, its_seq = unpack(redis.call('HMGET', task_prefix .. id, 'collection', 'seq'))
  if (its or default_collection) == collection and its_seq and tonumber(its_seq) < seq then return 1 end
end
return 0
