-- Claims a delivery that is due. Returns its URL, id, number of the attempt and entries; false if no delivery is due;
-- an empty list if the caller has to repeat the call, because this one only failed old entries or reached
-- `max_scanned`.
local callback_due_key = KEYS[1]
local callback_bytes_key = KEYS[2]
local callback_counts_key = KEYS[3]
local callback_oldest_key = KEYS[4]
local task_prefix = ARGV[1]
local batch_prefix = ARGV[2]
local callback_ends_prefix = ARGV[3]
local callback_delivery_prefix = ARGV[4]
local callback_receiver_prefix = ARGV[5]
local callback_slots_prefix = ARGV[6]
local callback_waiting_prefix = ARGV[7]
local delivery_size = tonumber(ARGV[8])
local max_concurrent = tonumber(ARGV[9]) -- deliveries to one receiver at once
local max_scanned = tonumber(ARGV[10]) -- URLs
local claim_ms = tonumber(ARGV[11])
local keep_ms = tonumber(ARGV[12]) -- maximum age of a callback, from its task's end
local new_id = ARGV[13] -- for a new delivery

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "deliveries.lua"

local now = now_ms()
local urls = redis.call('ZRANGEBYSCORE', callback_due_key, '-inf', now, 'LIMIT', 0, max_scanned)
for _, url in ipairs(urls) do
  local receiver = receiver_of(url)
  local ends_key, delivery_key = callback_ends_prefix .. url, callback_delivery_prefix .. url
  local slots_key, waiting_key = callback_slots_prefix .. receiver, callback_waiting_prefix .. receiver
  local failures, paused_until = unpack(
    redis.call('HMGET', callback_receiver_prefix .. receiver, 'fails', 'until'))
  redis.call('ZREMRANGEBYSCORE', slots_key, '-inf', now)
  if (tonumber(paused_until) or 0) > now then
    redis.call('ZADD', callback_due_key, paused_until, url)
  elseif redis.call('LLEN', ends_key) == 0 then
    schedule(url, now, 0)
    admit(receiver, 1, now)
  elseif redis.call('ZCARD', slots_key) >= (failures and 1 or max_concurrent) then
    redis.call('ZREM', callback_due_key, url)
    redis.call('ZADD', waiting_key, now, url)
  else
    local id, count, failed = unpack(redis.call('HMGET', delivery_key, 'id', 'count', 'fails'))
    if failed and not id then
      -- The last delivery was given up: fail the entries that have reached the maximum age too.
      local old = {}
      for _, entry in ipairs(redis.call('LRANGE', ends_key, 0, delivery_size - 1)) do
        local _, ended = read_entry(entry)
        if ended + keep_ms > now then break end
        old[#old + 1] = entry
      end
      set_callback_field(old, callback_field('failed', 0, 0, 'the receiver accepted no delivery in time'))
      remove(url, old, 'failed')
      if #old > 0 then
        if schedule(url, now, 0) then redis.call('ZADD', callback_due_key, now, url) else admit(receiver, 1, now) end
        return {}
      end
    end
    local entries = redis.call('LRANGE', ends_key, 0, (count or delivery_size) - 1)
    -- Fewer than `count`: a worker of an earlier version, which knows no entries of batches, has chosen the count.
    if not id or delivery_length(entries) < #entries then
      id, count = id or new_id, delivery_length(entries)
      redis.call('HSET', delivery_key, 'id', id, 'count', count)
    end
    redis.call('ZREM', waiting_key, url)
    redis.call('ZADD', callback_due_key, now + claim_ms, url)
    redis.call('ZADD', slots_key, now + claim_ms, url)
    redis.call('PEXPIRE', slots_key, claim_ms)
    local attempt = redis.call('HINCRBY', delivery_key, 'attempts', 1)
    return {url, id, attempt, {unpack(entries, 1, count)}}
  end
end
return #urls == max_scanned and {}
