-- Records a deletion of selected images. Returns 1 if an add that was accepted before it and that it may select is
-- running, else 0.
local running_key = KEYS[1]
local deleted_images_key = KEYS[2]
local task_prefix = ARGV[1]
local deleted_images_prefix = ARGV[2]
local default_collection = ARGV[3]
local collection = ARGV[4]
local filepath_prefix = ARGV[5]
local seq = tonumber(ARGV[6]) -- of the deletion
local member = ARGV[7]

--- @include "../../redis/lua/allow_oom.lua"

redis.call('ZADD', deleted_images_prefix .. collection, string.format('%.0f', seq), member)
local last = tonumber(redis.call('ZSCORE', deleted_images_key, collection)) or 0
if seq > last then redis.call('ZADD', deleted_images_key, string.format('%.0f', seq), collection) end
for _, id in ipairs(redis.call('ZRANGE', running_key, 0, -1)) do
  local its, its_seq, action, filepath = unpack(
    redis.call('HMGET', task_prefix .. id, 'collection', 'seq', 'action', 'filepath'))
  local is_earlier = its_seq and tonumber(its_seq) < seq and not action
  local has_prefix = string.sub(filepath or '', 1, #filepath_prefix) == filepath_prefix
  if is_earlier and has_prefix and (its or default_collection) == collection then return 1 end
end
return 0
