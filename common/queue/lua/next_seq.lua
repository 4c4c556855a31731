-- Takes the next `count` sequence numbers and returns the first. They are the microseconds of a clock that never goes
-- back: after a loss of data they are still above every earlier number, where a plain counter would start again at 1,
-- and after the clock was set back they count on from the last one.
local function next_seq(seq_key, count)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local first = math.max((tonumber(redis.call('GET', seq_key)) or 0) + 1, now)
  redis.call('SET', seq_key, string.format('%.0f', first + count - 1))
  return first
end
