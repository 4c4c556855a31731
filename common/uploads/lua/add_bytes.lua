local function add_bytes(bytes)
  -- Never below zero: Redis may have lost the end of its file, the sum with it.
  if redis.call('INCRBY', upload_bytes_key, bytes) < 0 then redis.call('SET', upload_bytes_key, 0) end
end
