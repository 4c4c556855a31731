-- Deletes uploads, at once or after `after_ms`.
local upload_bytes_key = KEYS[1]
local upload_ends_key = KEYS[2]
local upload_prefix = ARGV[1]
local after_ms = tonumber(ARGV[2])
local ids_from = 3

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "add_bytes.lua"
--- @include "expire_at.lua"

for i = ids_from, #ARGV do
  local upload_id, key = ARGV[i], upload_prefix .. ARGV[i]
  if redis.call('EXISTS', key) == 1 then
    if after_ms > 0 then
      expire_at(upload_id, now_ms() + after_ms)
    else
      local size = redis.call('STRLEN', key)
      redis.call('DEL', key)
      redis.call('ZREM', upload_ends_key, upload_id .. ':' .. size)
      add_bytes(-size)
    end
  end
end
