-- Ends a download of a task, and releases its slot of the host. Adapts the host's limits to the outcome, and acquires
-- the free slots for waiting tasks: in the order of the queues, then of the sequence numbers. A task holds its slot
-- before it is enqueued, so that it does not have to wait again. Returns the time, and the id and queue of each task to
-- be enqueued.
local open_key = KEYS[1]
local waiting_hosts_key = KEYS[2]
local deferred_key = KEYS[3]
local deferred_by_host_key = KEYS[4]
local hosts_due_key = KEYS[5]
local task_prefix = ARGV[1]
local slots_prefix = ARGV[2]
local waiting_prefix = ARGV[3]
local host_prefix = ARGV[4]
local batch_prefix = ARGV[5]
local max_slots = tonumber(ARGV[6]) -- 0 for no limit
local slot_lease_ms = tonumber(ARGV[7])
local retry_for_ms = tonumber(ARGV[8])
local longest_retry_after_ms = tonumber(ARGV[9])
local max_admitted = tonumber(ARGV[10])
local host = ARGV[11]
local id = ARGV[12] -- '' to release none
local outcome = ARGV[13] -- of the download: 'success', 'fault', or '' if it shows nothing about the host
local code = ARGV[14] -- of the fault
local error_text = ARGV[15]
local is_rejection = ARGV[16] == '1' -- the host refuses to send so much
local retry_after_ms = tonumber(ARGV[17]) -- of the host's answer, else 0
local jitter = tonumber(ARGV[18]) -- factor of the pause
local queues_from = 19

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "host_slots.lua"
--- @include "host_pace.lua"
--- @include "deferred_tasks.lua"
--- @include "batch_cancelled.lua"

local min_tick_ms = 20
local is_left = false

local slots_key, now, admitted, started = slots_prefix .. host, now_ms(), {}, 0
local pace = read_pace(host, now)
if outcome == 'success' then
  report_success(pace)
elseif outcome == 'fault' then
  report_fault(pace, now, {
    code = code, error = error_text, is_rejection = is_rejection, retry_after_ms = retry_after_ms, jitter = jitter})
end
redis.call('ZREM', slots_key, id)
local is_limited = max_slots > 0 or pace.rate
local free = math.min(max_admitted, starts_left(pace, now, slots_in_use(slots_key, now, slot_lease_ms), max_slots))

-- Lets the first task begin that waits in this set. Returns false if none waits, or it has to wait longer.
local function admit(waiting_key, queue)
  local first = redis.call('ZRANGE', waiting_key, 0, 0)[1]
  if not first then return false end
  local accepted, retried, batch = unpack(redis.call('HMGET', task_prefix .. first, 'accepted', 'retried', 'batch'))
  local is_open = accepted and redis.call('ZSCORE', open_key, first)
  -- A task that is cancelled or given up needs no download.
  local is_cancelled = batch and is_batch_cancelled(batch)
  local needs_slot = is_open and not is_cancelled and not is_given_up(pace, retried or accepted, now, retry_for_ms)
  if #admitted >= 2 * max_admitted or (needs_slot and started >= free) then
    is_left = true
    return false
  end
  redis.call('ZREM', waiting_key, first)
  remove_deferred(first, host)
  if is_open then
    redis.call('ZADD', open_key, now, first)
    admitted[#admitted + 1], admitted[#admitted + 2] = first, queue
  end
  if needs_slot then
    started = started + 1
    if is_limited then keep_slot(slots_key, first, now, slot_lease_ms) end
  end
  return true
end

for i = queues_from, #ARGV do
  while admit(waiting_prefix .. ARGV[i] .. ':' .. host, ARGV[i]) do end
end
take_starts(pace, now, started)
if is_left then
  local next_at, is_page_full = next_start_at(pace), #admitted >= 2 * max_admitted
  -- Tasks that wait for a slot begin with a release; the slots of dead workers expire without one.
  local at = (is_page_full or next_at > now) and math.max(next_at, now + min_tick_ms) or now + 1000
  redis.call('ZADD', hosts_due_key, string.format('%.0f', math.min(at, now + longest_retry_after_ms)), host)
else
  redis.call('SREM', waiting_hosts_key, host)
  redis.call('ZREM', hosts_due_key, host)
end
return {now, admitted}
