-- Returns 1 if a task of this filepath may still store an image: an open one, or a failed one that can be retried. Also
-- returns 1 if there are more tasks than it may scan.
local open_key = KEYS[1]
local failed_key = KEYS[2]
local task_prefix = ARGV[1]
local default_collection = ARGV[2]
local max_scanned = tonumber(ARGV[3])
local collection = ARGV[4]
local filepath = ARGV[5]

if redis.call('ZCARD', open_key) + redis.call('ZCARD', failed_key) > max_scanned then return 1 end
for _, key in ipairs({open_key, failed_key}) do
  for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    local its_filepath, its_collection = unpack(redis.call('HMGET', task_prefix .. id, 'filepath', 'collection'))
    if its_filepath == filepath and (its_collection or default_collection) == collection then return 1 end
  end
end
return 0
