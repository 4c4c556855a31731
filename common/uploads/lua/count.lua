-- Adds the size of a new upload to the sum. SET has written its bytes before: as an argument of this script they would
-- be in memory twice. Deletes the upload and returns 0 if the sum would exceed `max_bytes`.
local upload_bytes_key = KEYS[1]
local upload_ends_key = KEYS[2]
local upload_prefix = ARGV[1]
local max_bytes = tonumber(ARGV[2])
local keep_ms = tonumber(ARGV[3])
local upload_id = ARGV[4]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "add_bytes.lua"
--- @include "subtract_expired.lua"
--- @include "expire_at.lua"

local key = upload_prefix .. upload_id
local size = redis.call('STRLEN', key)
subtract_expired()
-- redis-py repeats a call whose reply was lost: then the upload is counted already.
if not redis.call('ZSCORE', upload_ends_key, upload_id .. ':' .. size) then
  if (tonumber(redis.call('GET', upload_bytes_key)) or 0) + size > max_bytes then
    redis.call('DEL', key)
    return 0
  end
  add_bytes(size)
end
expire_at(upload_id, now_ms() + keep_ms)
return 1
