-- Removes the expiry of uploads.
local upload_ends_key = KEYS[1]
local upload_prefix = ARGV[1]
local ids_from = 2

--- @include "../../redis/lua/allow_oom.lua"

for i = ids_from, #ARGV do
  local upload_id, key = ARGV[i], upload_prefix .. ARGV[i]
  redis.call('PERSIST', key)
  redis.call('ZREM', upload_ends_key, upload_id .. ':' .. redis.call('STRLEN', key))
end
