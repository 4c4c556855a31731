-- Makes a running task pending again until its next try, because its host had a temporary fault. Returns the time of
-- the next try (ms), 0 if faults of this task are not retried any longer; false if it is not running.
local open_key = KEYS[1]
local running_key = KEYS[2]
local deferred_key = KEYS[3]
local deferred_by_host_key = KEYS[4]
local task_prefix = ARGV[1]
local batch_prefix = ARGV[2]
local closed_channel = ARGV[3]
local retry_for_ms = tonumber(ARGV[4])
local first_wait_ms = tonumber(ARGV[5]) -- doubles with each try
local longest_wait_ms = tonumber(ARGV[6])
local longest_retry_after_ms = tonumber(ARGV[7])
local id = ARGV[8]
local code = ARGV[9]
local error_text = ARGV[10]
local retry_after_ms = tonumber(ARGV[11]) -- of the host's answer, else 0
local jitter = tonumber(ARGV[12]) -- factor of the wait

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "deferred_tasks.lua"
--- @include "batch_counts.lua"
--- @include "batch_begin.lua"

local key, now = task_prefix .. id, now_ms()
local state, host, since, batch, uncounted = unpack(
  redis.call('HMGET', key, 'state', 'host', 'faulty_since', 'batch', 'uncounted'))
if state ~= 'running' then return false end
since = tonumber(since) or now
local ends = since + retry_for_ms
if now >= ends or retry_for_ms == 0 then return 0 end
local tries = redis.call('HINCRBY', key, 'tries', 1)
local wait = math.min(longest_wait_ms, first_wait_ms * 2 ^ math.min(tries - 1, 30)) * jitter
wait = math.max(wait, math.min(retry_after_ms, longest_retry_after_ms) + first_wait_ms * (1 - jitter))
-- The last try is at the end.
local due = math.floor(math.min(now + wait, ends))
redis.call('HSET', key, 'state', 'pending', 'faulty_since', since, 'next', due, 'cause_code', code, 'cause', error_text)
redis.call('HDEL', key, 'started')
redis.call('HINCRBY', key, 'unfinished', -1)
redis.call('ZREM', running_key, id)
redis.call('ZADD', open_key, 'XX', now, id)
add_deferred(id, host, due)
count_begins(batch, uncounted, -1, now)
-- Waiting requests read the task again, and see the time of its next try.
redis.call('PUBLISH', closed_channel, id)
return due
