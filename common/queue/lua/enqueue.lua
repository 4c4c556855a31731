-- Adds pending tasks, all or none. Returns false where there would be too many open ones; else the first sequence
-- number, the time and, where some tasks exist already, the fingerprint of each, '' for a new one.
local open_key = KEYS[1]
local seq_key = KEYS[2]
local task_prefix = ARGV[1]
local max_open = tonumber(ARGV[2])
local queue = ARGV[3]
local request_id = ARGV[4] -- '' for none
local traceparent = ARGV[5] -- '' for none
local remember_ms = tonumber(ARGV[6]) -- how long a task with a fingerprint is kept, from when it was accepted
-- Of each task: id, filepath, job, host ('' where it needs no slot), callback URL ('' for none), fingerprint ('' for
-- one whose id is new in any case).
local tasks_from = 7

--- @include "../../redis/lua/now_ms.lua"
--- @include "next_seq.lua"

local count, existing, created = (#ARGV - tasks_from + 1) / 6, {}, 0
for i = 1, count do
  local at = tasks_from + 6 * (i - 1)
  local id, fingerprint = ARGV[at], ARGV[at + 5]
  existing[i] = fingerprint ~= '' and redis.call('HGET', task_prefix .. id, 'fingerprint') or ''
  if existing[i] == '' then created = created + 1 end
end
if redis.call('ZCARD', open_key) + created > max_open then return false end
local first, now = next_seq(seq_key, count), now_ms()
for i = 1, count do
  if existing[i] == '' then
    local at = tasks_from + 6 * (i - 1)
    local id, filepath, job, host, callback, fingerprint = unpack(ARGV, at, at + 5)
    local key = task_prefix .. id
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
return created < count and {first, now, existing} or {first, now}
