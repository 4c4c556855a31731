-- Returns the sum of all uploads' bytes.
local upload_bytes_key = KEYS[1]
local upload_ends_key = KEYS[2]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "add_bytes.lua"
--- @include "subtract_expired.lua"

subtract_expired()
return tonumber(redis.call('GET', upload_bytes_key)) or 0
