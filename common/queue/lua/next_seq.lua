-- Allocates `count` sequence numbers and returns the first. A number is the time in microseconds, or the last number
-- plus one if the clock was set back. After a loss of data, new numbers are above all earlier ones; a plain counter
-- would start again at 1.
local function next_seq(seq_key, count)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local first = math.max((tonumber(redis.call('GET', seq_key)) or 0) + 1, now)
  redis.call('SET', seq_key, string.format('%.0f', first + count - 1))
  return first
end
