-- Finds deferred tasks whose next try is due, and hosts at which the next download may begin. Returns the time, the id
-- and queue of each task to be enqueued, the hosts, and the time at which the next task or host is due (0 for none).
local open_key = KEYS[1]
local deferred_key = KEYS[2]
local deferred_by_host_key = KEYS[3]
local hosts_due_key = KEYS[4]
local task_prefix = ARGV[1]
local limit = tonumber(ARGV[2])
local longest_deferral_ms = tonumber(ARGV[3])
local host_claim_ms = tonumber(ARGV[4]) -- after it, another worker cares for a host whose worker died meanwhile

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "deferred_tasks.lua"

local now, tasks = now_ms(), {}

local function take(ids)
  for _, id in ipairs(ids) do
    local host, queue = unpack(redis.call('HMGET', task_prefix .. id, 'host', 'queue'))
    remove_deferred(id, host)
    if queue and redis.call('ZSCORE', open_key, id) then
      redis.call('ZADD', open_key, now, id)
      tasks[#tasks + 1], tasks[#tasks + 2] = id, queue
    end
  end
end

take(redis.call('ZRANGEBYSCORE', deferred_key, '-inf', now, 'LIMIT', 0, limit))
-- Times further in the future are from before the clock was set back.
take(redis.call('ZRANGEBYSCORE', deferred_key, '(' .. now + longest_deferral_ms, '(inf', 'LIMIT', 0, limit))
local hosts = redis.call('ZRANGEBYSCORE', hosts_due_key, '-inf', now, 'LIMIT', 0, limit)
for _, host in ipairs(hosts) do redis.call('ZADD', hosts_due_key, now + host_claim_ms, host) end
local next_due = math.huge
for _, key in ipairs({deferred_key, hosts_due_key}) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  next_due = math.min(next_due, tonumber(first) or math.huge)
end
return {now, tasks, hosts, next_due < math.huge and next_due or 0}
