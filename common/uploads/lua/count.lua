-- Counts an upload that was just written: a script that got the bytes as an argument would hold them twice. Returns 0,
-- and deletes it, where it is too large for what may be held.
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
-- redis-py repeats a call whose first reply was lost: then it is counted already.
if not redis.call('ZSCORE', upload_ends_key, upload_id .. ':' .. size) then
  if (tonumber(redis.call('GET', upload_bytes_key)) or 0) + size > max_bytes then
    redis.call('DEL', key)
    return 0
  end
  add_bytes(size)
end
expire_at(upload_id, now_ms() + keep_ms)
return 1
