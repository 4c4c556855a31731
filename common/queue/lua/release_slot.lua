-- Releases a task's slot of its host, and acquires the free slots for waiting tasks: in the order of the queues, then
-- of the sequence numbers. A task holds its slot before it is enqueued, so that it does not have to wait again. Returns
-- the time, and the id and queue of each task to be enqueued.
local open_key = KEYS[1]
local waiting_hosts_key = KEYS[2]
local slots_prefix = ARGV[1]
local waiting_prefix = ARGV[2]
local max_slots = tonumber(ARGV[3]) -- 0 for no limit
local slot_lease_ms = tonumber(ARGV[4])
local max_unlimited = tonumber(ARGV[5]) -- maximum number of tasks to enqueue if there is no limit
local host = ARGV[6]
local id = ARGV[7] -- '' to release none
local queues_from = 8

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "host_slots.lua"

local slots_key, now, admitted = slots_prefix .. host, now_ms(), {}
redis.call('ZREM', slots_key, id)
local free = max_slots > 0 and max_slots - slots_in_use(slots_key, now, slot_lease_ms) or max_unlimited
for i = queues_from, #ARGV do
  local queue = ARGV[i]
  while free > 0 do
    local waiting = redis.call('ZPOPMIN', waiting_prefix .. queue .. ':' .. host)[1]
    if not waiting then break end
    if redis.call('ZSCORE', open_key, waiting) then
      redis.call('ZADD', open_key, now, waiting)
      if max_slots > 0 then keep_slot(slots_key, waiting, now, slot_lease_ms) end
      admitted[#admitted + 1], admitted[#admitted + 2] = waiting, queue
      free = free - 1
    end
  end
end
if free > 0 then redis.call('SREM', waiting_hosts_key, host) end
return {now, admitted}
