-- Sets the time at which open tasks were enqueued, where nobody else has changed it. Returns the ids of those that the
-- caller has to enqueue: a task that waits for a slot of its host has no message, and needs none yet.
local open_key = KEYS[1]
local task_prefix = ARGV[1]
local waiting_prefix = ARGV[2]
local enqueued_at = ARGV[3]
local tasks_from = 4 -- of each task: id, when it was enqueued as far as the caller knows

local touched = {}
for i = tasks_from, #ARGV, 2 do
  local id, last = ARGV[i], tonumber(ARGV[i + 1])
  local score = redis.call('ZSCORE', open_key, id)
  if score and tonumber(score) == last then
    redis.call('ZADD', open_key, enqueued_at, id)
    local host, queue = unpack(redis.call('HMGET', task_prefix .. id, 'host', 'queue'))
    if not (host and redis.call('ZSCORE', waiting_prefix .. queue .. ':' .. host, id)) then
      touched[#touched + 1] = id
    end
  end
end
return touched
