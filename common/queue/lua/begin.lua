-- Marks a task as running, and acquires a slot of its host if the host has limits. Returns sequence number, job, host
-- ('' without one), request id, traceparent, collection, action, batch, code and text of the fault for which the host
-- is given up ('' and '' if it is not), 1 if the task has a slot, 1 if the collection was deleted after the task was
-- accepted, 1 if its batch is cancelled, the number of begins without an end, including this one, and the later
-- deletions of selected images; false for a closed or unknown task; an empty list for a task that now waits for its
-- host.
local open_key = KEYS[1]
local running_key = KEYS[2]
local waiting_hosts_key = KEYS[3]
local deleted_collections_key = KEYS[4]
local deferred_key = KEYS[5]
local deferred_by_host_key = KEYS[6]
local hosts_due_key = KEYS[7]
local task_prefix = ARGV[1]
local deleted_images_prefix = ARGV[2]
local slots_prefix = ARGV[3]
local waiting_prefix = ARGV[4]
local host_prefix = ARGV[5]
local default_collection = ARGV[6]
local max_slots = tonumber(ARGV[7]) -- 0 for no limit
local slot_lease_ms = tonumber(ARGV[8])
local retry_for_ms = tonumber(ARGV[9])
local batch_prefix = ARGV[10]
local longest_retry_after_ms = tonumber(ARGV[11])
local id = ARGV[12]

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "host_slots.lua"
--- @include "host_pace.lua"
--- @include "deferred_tasks.lua"
--- @include "deleted_collections.lua"
--- @include "deleted_images.lua"
--- @include "batch_cancelled.lua"
--- @include "batch_counts.lua"
--- @include "batch_begin.lua"

local key, now = task_prefix .. id, now_ms()
local state, seq, job, host, queue, request_id, traceparent, collection, action, batch, uncounted = unpack(redis.call(
  'HMGET', key, 'state', 'seq', 'job', 'host', 'queue', 'request', 'trace', 'collection', 'action', 'batch',
  'uncounted'))
if state ~= 'pending' and state ~= 'running' then return false end
collection = collection or default_collection

-- Lets the task wait without a message, until `release_slot` returns it.
local function wait_for_host(pace)
  redis.call('HSET', key, 'state', 'pending')
  redis.call('HDEL', key, 'started')
  redis.call('ZREM', running_key, id)
  redis.call('ZADD', open_key, now, id)
  redis.call('ZADD', waiting_prefix .. queue .. ':' .. host, seq, id)
  redis.call('SADD', waiting_hosts_key, host)
  if state == 'running' then count_begins(batch, uncounted, -1, now) end
  remove_deferred(id, host)
  add_deferred(id, host, '+inf')
  if pace.rate then
    local at = string.format('%.0f', math.max(now, next_start_at(pace)))
    redis.call('HSET', key, 'next', at)
    redis.call('ZADD', hosts_due_key, 'NX', at, host)
    local code, error_text = unpack(redis.call('HMGET', pace.key, 'code', 'error'))
    if code then redis.call('HSET', key, 'cause_code', code, 'cause', error_text) end
  end
end

-- Returns whether the download may begin, and whether it has a slot.
local function acquire_slot(pace)
  if max_slots == 0 and not pace.rate then return true, false end
  local slots_key = slots_prefix .. host
  local in_use = slots_in_use(slots_key, now, slot_lease_ms)
  if not redis.call('ZSCORE', slots_key, id) then
    -- Others wait already: their turn is before.
    local must_wait = pace.rate and redis.call('SISMEMBER', waiting_hosts_key, host) == 1
    if must_wait or starts_left(pace, now, in_use, max_slots) < 1 then return false, false end
    take_starts(pace, now, 1)
  end
  keep_slot(slots_key, id, now, slot_lease_ms)
  redis.call('ZREM', waiting_prefix .. queue .. ':' .. host, id)
  return true, true
end

-- A task that ends without a download needs neither the slot with which it was enqueued nor its place among the others.
local function leave_host()
  redis.call('ZREM', slots_prefix .. host, id)
  redis.call('ZREM', waiting_prefix .. queue .. ':' .. host, id)
end

local deleted, code, error_text, has_slot = is_deleted(collection, seq), '', '', false
local cancelled = batch and is_batch_cancelled(batch)
if host and (deleted or cancelled) then
  leave_host()
elseif host then
  local pace, accepted, retried = read_pace(host, now), unpack(redis.call('HMGET', key, 'accepted', 'retried'))
  if is_given_up(pace, retried or accepted, now, retry_for_ms) then
    code, error_text = unpack(redis.call('HMGET', pace.key, 'code', 'error'))
    leave_host()
  else
    local may_begin
    may_begin, has_slot = acquire_slot(pace)
    if not may_begin then
      wait_for_host(pace)
      return {}
    end
    count_start(pace, now)
    -- The success of a host with faults ends their row.
    has_slot = has_slot or pace.streak > 0
  end
end
remove_deferred(id, host)
redis.call('HDEL', key, 'next')
redis.call('HSET', key, 'state', 'running', 'started', now)
redis.call('HINCRBY', key, 'attempts', 1)
if state == 'pending' then count_begins(batch, uncounted, 1, now) end
local unfinished = redis.call('HINCRBY', key, 'unfinished', 1)
redis.call('ZADD', running_key, now, id)
return {
  seq, job, host or '', request_id or '', traceparent or '', collection, action or '', batch or '', code or '',
  error_text or '', has_slot and 1 or 0, deleted and 1 or 0, cancelled and 1 or 0, unfinished,
  action and {} or deletions_after(collection, seq)}
