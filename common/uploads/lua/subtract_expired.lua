-- Subtracts the bytes of uploads that Redis has expired.
local function subtract_expired()
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', upload_ends_key, '-inf', '(' .. now_ms(), 'LIMIT', 0, 1000)) do
    redis.call('ZREM', upload_ends_key, member)
    add_bytes(-tonumber(string.match(member, ':(%d+)$')))
  end
end
