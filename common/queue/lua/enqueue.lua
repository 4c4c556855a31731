-- Adds pending tasks until `max_open` tasks are open. Returns the sequence number of the first item and the time.
-- Unless all tasks were added, it also returns an outcome for each item: '' if it was added, 'full' if it was not, or
-- the fingerprint of its existing task.
local open_key = KEYS[1]
local seq_key = KEYS[2]
local task_prefix = ARGV[1]
local max_open = tonumber(ARGV[2])
local queue = ARGV[3]
local request_id = ARGV[4] -- '' for none
local traceparent = ARGV[5] -- '' for none
local remember_ms = tonumber(ARGV[6]) -- minimum retention of a task with a fingerprint, from its acceptance
-- Of each task: id, filepath, job, host ('' if it needs no slot), callback URL ('' for none), fingerprint ('' for a
-- task with a random id).
local tasks_from = 7

--- @include "../../redis/lua/now_ms.lua"
--- @include "next_seq.lua"

local count = (#ARGV - tasks_from + 1) / 6
local capacity = max_open - redis.call('ZCARD', open_key)
local first, now, outcomes, added = next_seq(seq_key, count), now_ms(), {}, 0
for i = 1, count do
  local at = tasks_from + 6 * (i - 1)
  local id, filepath, job, host, callback, fingerprint = unpack(ARGV, at, at + 5)
  local key = task_prefix .. id
  outcomes[i] = fingerprint ~= '' and redis.call('HGET', key, 'fingerprint') or ''
  if outcomes[i] == '' and added >= capacity then
    outcomes[i] = 'full'
  elseif outcomes[i] == '' then
    added = added + 1
    redis.call('HSET', key, 'state', 'pending', 'filepath', filepath, 'job', job,
      'queue', queue, 'seq', string.format('%.0f', first + i - 1), 'accepted', now)
    if request_id ~= '' then redis.call('HSET', key, 'request', request_id) end
    if traceparent ~= '' then redis.call('HSET', key, 'trace', traceparent) end
    if host ~= '' then redis.call('HSET', key, 'host', host) end
    if callback ~= '' then redis.call('HSET', key, 'callback', callback) end
    if fingerprint ~= '' then
      redis.call('HSET', key, 'fingerprint', fingerprint, 'remembered', now + remember_ms)
    end
    redis.call('ZADD', open_key, now, id)
  end
end
return added < count and {first, now, outcomes} or {first, now}
