-- Adds to the sum of all uploads' bytes.
local function add_bytes(bytes)
  -- After a crash Redis may have lost the last additions: the sum must not fall below zero.
  if redis.call('INCRBY', upload_bytes_key, bytes) < 0 then redis.call('SET', upload_bytes_key, 0) end
end
