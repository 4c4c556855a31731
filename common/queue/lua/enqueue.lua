-- Adds pending tasks of one collection until `max_open` tasks are open, or `max_open_in_collection` of the collection.
-- Returns the sequence number of the first item, the time and the queue. Unless all tasks were added, it also returns
-- an outcome for each item: '' if it was added, 'full', 'quota', 'host' or 'cancelled' if it was not, or the
-- fingerprint of its existing task.
local open_key = KEYS[1]
local seq_key = KEYS[2]
local open_by_collection_key = KEYS[3]
local batch_queue_of_key = KEYS[4]
local batch_ends_key = KEYS[5]
local batch_requests_key = KEYS[6]
local deferred_by_host_key = KEYS[7]
local task_prefix = ARGV[1]
local default_collection = ARGV[2]
local batch_prefix = ARGV[3]
local max_open = tonumber(ARGV[4])
local max_deferred = tonumber(ARGV[5]) -- tasks that wait for one host
local queue = ARGV[6] -- `batch_queue` stands for the batch queue of the collection
local batch_queue = ARGV[7]
local batch_queue_count = tonumber(ARGV[8])
local first_batch_queue = tonumber(ARGV[9])
local collection = ARGV[10]
local max_open_in_collection = tonumber(ARGV[11]) -- -1 for no limit
local request_id = ARGV[12] -- '' for none
local traceparent = ARGV[13] -- '' for none
local action = ARGV[14] -- '' for an add
local remember_ms = tonumber(ARGV[15]) -- minimum retention of a task with a fingerprint, from its acceptance
local batch = ARGV[16] -- '' for none
local batch_request = ARGV[17] -- that adds to the batch
local batch_lease_ms = tonumber(ARGV[18])
local uncounted = ARGV[19] -- '1': the task is not one of those that its batch counts; else ''
-- Of each task: id, filepath, job, host ('' for an upload), callback URL ('' for none), fingerprint ('' for a
-- task with a random id).
local tasks_from = 20

--- @include "../../redis/lua/now_ms.lua"
--- @include "next_seq.lua"
--- @include "open_tasks.lua"
--- @include "batch_queue.lua"
--- @include "batch_cancelled.lua"
--- @include "batch_counts.lua"
--- @include "batch_requests.lua"
--- @include "batch_reopening.lua"

local deferred = {}
local function is_full(host)
  deferred[host] = deferred[host] or tonumber(redis.call('HGET', deferred_by_host_key, host)) or 0
  return deferred[host] >= max_deferred
end

local count = (#ARGV - tasks_from + 1) / 6
local capacity = max_open - redis.call('ZCARD', open_key)
local open = tonumber(redis.call('HGET', open_by_collection_key, collection)) or 0
local quota = max_open_in_collection >= 0 and max_open_in_collection - open or count
local first, now, outcomes = next_seq(seq_key, count), now_ms(), {}
local added, repeated, has_fingerprint = 0, 0, false
if queue == batch_queue then queue = choose_batch_queue(collection, open, first_batch_queue) end
-- redis-py repeats a call whose reply was lost: tasks of random ids exist then, and must not be counted again.
local is_repeated = count > 0 and redis.call('EXISTS', task_prefix .. ARGV[tasks_from]) == 1
local is_cancelled = batch ~= '' and is_batch_cancelled(batch)
for i = 1, count do
  local at = tasks_from + 6 * (i - 1)
  local id, filepath, job, host, callback, fingerprint = unpack(ARGV, at, at + 5)
  local key = task_prefix .. id
  outcomes[i] = fingerprint ~= '' and redis.call('HGET', key, 'fingerprint') or ''
  if outcomes[i] == '' and is_repeated and redis.call('EXISTS', key) == 1 then
    repeated = repeated + 1
  elseif outcomes[i] == '' and is_cancelled then
    outcomes[i] = 'cancelled'
  elseif outcomes[i] == '' and added >= quota then
    outcomes[i] = 'quota'
  elseif outcomes[i] == '' and added >= capacity then
    outcomes[i] = 'full'
  elseif outcomes[i] == '' and host ~= '' and is_full(host) then
    outcomes[i] = 'host'
  elseif outcomes[i] == '' then
    added = added + 1
    redis.call('HSET', key, 'state', 'pending', 'filepath', filepath, 'job', job,
      'queue', queue, 'seq', string.format('%.0f', first + i - 1), 'accepted', now)
    if collection ~= default_collection then redis.call('HSET', key, 'collection', collection) end
    if action ~= '' then redis.call('HSET', key, 'action', action) end
    if request_id ~= '' then redis.call('HSET', key, 'request', request_id) end
    if traceparent ~= '' then redis.call('HSET', key, 'trace', traceparent) end
    if host ~= '' then redis.call('HSET', key, 'host', host) end
    if callback ~= '' then redis.call('HSET', key, 'callback', callback) end
    if batch ~= '' then redis.call('HSET', key, 'batch', batch) end
    if uncounted ~= '' then redis.call('HSET', key, 'uncounted', 1) end
    if fingerprint ~= '' then
      has_fingerprint = true
      redis.call('HSET', key, 'fingerprint', fingerprint, 'remembered', now + remember_ms)
    end
    redis.call('ZADD', open_key, now, id)
  end
end
count_open(collection, added)
if batch ~= '' and added > 0 then
  count_in_batch(batch, {open = added, total = uncounted == '' and added or 0})
  reopen_batch(batch)
  if has_fingerprint and redis.call('EXISTS', batch_prefix .. batch) == 1 then
    redis.call('HSET', batch_prefix .. batch, 'remembered', now + remember_ms)
  end
end
if batch ~= '' then keep_request(batch, batch_request, now + batch_lease_ms) end
return added + repeated < count and {first, now, queue, outcomes} or {first, now, queue}
