-- Lists of the ended tasks that are not failed, by state and minute. An entry of a list takes a third of the memory of
-- one in a sorted set, and a list expires as a whole.
local function list_ended(state, id, now)
  local index, minute = ended_tasks_prefix .. state, math.floor(now / 60000)
  local key = index .. ':' .. minute
  if redis.call('RPUSH', key, id) > 1 then return end
  redis.call('EXPIRE', key, finished_keep_s + 60)
  redis.call('ZADD', index, minute, minute)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', minute - finished_keep_s / 60 - 2)
  redis.call('EXPIRE', index, finished_keep_s + 60)
end
