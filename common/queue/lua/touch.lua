-- Sets the time of enqueueing of open tasks, unless another caller has changed it. Returns the ids of the tasks that
-- the caller must enqueue: all except those that wait for their host, which need no message yet.
local open_key = KEYS[1]
local waiting_hosts_key = KEYS[2]
local deferred_key = KEYS[3]
local task_prefix = ARGV[1]
local waiting_prefix = ARGV[2]
local enqueued_at = ARGV[3]
local tasks_from = 4 -- of each task: id, time of enqueueing that the caller has read

local touched = {}
for i = tasks_from, #ARGV, 2 do
  local id, last = ARGV[i], tonumber(ARGV[i + 1])
  local score = redis.call('ZSCORE', open_key, id)
  if score and tonumber(score) == last then
    redis.call('ZADD', open_key, enqueued_at, id)
    local host, queue = unpack(redis.call('HMGET', task_prefix .. id, 'host', 'queue'))
    if host and redis.call('ZSCORE', waiting_prefix .. queue .. ':' .. host, id) then
      -- A worker of an earlier version knows fewer queues, and forgets a host whose tasks wait only in the others.
      redis.call('SADD', waiting_hosts_key, host)
    else
      -- A worker of an earlier version takes a task from those that wait for a slot, and leaves it among the deferred.
      local due = redis.call('ZSCORE', deferred_key, id)
      if not due or due == 'inf' then touched[#touched + 1] = id end
    end
  end
end
return touched
