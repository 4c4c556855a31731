-- Adds pending tasks of one collection until `max_open` tasks are open, or `max_open_in_collection` of the collection.
-- Returns the sequence number of the first item, the time and the queue. Unless all tasks were added, it also returns
-- an outcome for each item: '' if it was added, 'full', 'quota' or 'host' if it was not, or the fingerprint of its
-- existing task.
local open_key = KEYS[1]
local seq_key = KEYS[2]
local open_by_collection_key = KEYS[3]
local batch_queue_of_key = KEYS[4]
local deferred_by_host_key = KEYS[5]
local task_prefix = ARGV[1]
local default_collection = ARGV[2]
local max_open = tonumber(ARGV[3])
local max_deferred = tonumber(ARGV[4]) -- tasks that wait for one host
local queue = ARGV[5] -- `batch_queue` stands for the batch queue of the collection
local batch_queue = ARGV[6]
local batch_queue_count = tonumber(ARGV[7])
local first_batch_queue = tonumber(ARGV[8])
local collection = ARGV[9]
local max_open_in_collection = tonumber(ARGV[10]) -- -1 for no limit
local request_id = ARGV[11] -- '' for none
local traceparent = ARGV[12] -- '' for none
local action = ARGV[13] -- '' for an add
local remember_ms = tonumber(ARGV[14]) -- minimum retention of a task with a fingerprint, from its acceptance
-- Of each task: id, filepath, job, host ('' for an upload), callback URL ('' for none), fingerprint ('' for a
-- task with a random id).
local tasks_from = 15

--- @include "../../redis/lua/now_ms.lua"
--- @include "next_seq.lua"
--- @include "open_tasks.lua"
--- @include "batch_queue.lua"

local deferred = {}
local function is_full(host)
  deferred[host] = deferred[host] or tonumber(redis.call('HGET', deferred_by_host_key, host)) or 0
  return deferred[host] >= max_deferred
end

local count = (#ARGV - tasks_from + 1) / 6
local capacity = max_open - redis.call('ZCARD', open_key)
local open = tonumber(redis.call('HGET', open_by_collection_key, collection)) or 0
local quota = max_open_in_collection >= 0 and max_open_in_collection - open or count
local first, now, outcomes, added = next_seq(seq_key, count), now_ms(), {}, 0
if queue == batch_queue then queue = choose_batch_queue(collection, open, first_batch_queue) end
for i = 1, count do
  local at = tasks_from + 6 * (i - 1)
  local id, filepath, job, host, callback, fingerprint = unpack(ARGV, at, at + 5)
  local key = task_prefix .. id
  outcomes[i] = fingerprint ~= '' and redis.call('HGET', key, 'fingerprint') or ''
  if outcomes[i] == '' and added >= quota then
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
    if fingerprint ~= '' then
      redis.call('HSET', key, 'fingerprint', fingerprint, 'remembered', now + remember_ms)
    end
    redis.call('ZADD', open_key, now, id)
  end
end
count_open(collection, added)
return added < count and {first, now, queue, outcomes} or {first, now, queue}
