-- Sets the expiry of an upload (ms since 1970).
local function expire_at(upload_id, at)
  local key = upload_prefix .. upload_id
  redis.call('PEXPIREAT', key, at)
  redis.call('ZADD', upload_ends_key, at, upload_id .. ':' .. redis.call('STRLEN', key))
end
