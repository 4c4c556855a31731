-- Ends an attempt of a delivery. Returns the state of its callbacks: 'delivered', 'failed' or 'pending'; false if the
-- caller's claim had ended.
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
local keep_ms = tonumber(ARGV[10]) -- maximum age of a callback, from its task's end
local first_pause_ms = tonumber(ARGV[11])
local longest_pause_ms = tonumber(ARGV[12])
local url = ARGV[13]
local delivery_id = ARGV[14]
local attempt = ARGV[15]
local result = ARGV[16] -- 'accepted', 'gone' or 'failed'
local problem = ARGV[17]
local responded = ARGV[18] == '1'
local jitter = tonumber(ARGV[19]) -- factor of each pause

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "deliveries.lua"

local function pause_ms(failures)
  return math.floor(math.min(longest_pause_ms, first_pause_ms * 2 ^ math.min(failures - 1, 30)) * jitter)
end

local now, receiver, delivery_key = now_ms(), receiver_of(url), callback_delivery_prefix .. url
local receiver_key, slots_key = callback_receiver_prefix .. receiver, callback_slots_prefix .. receiver
local id, attempts, count = unpack(redis.call('HMGET', delivery_key, 'id', 'attempts', 'count'))
if id ~= delivery_id or attempts ~= attempt then return false end
redis.call('ZREM', slots_key, url)
if responded then
  redis.call('DEL', receiver_key)
  admit(receiver, max_concurrent - redis.call('ZCARD', slots_key), now)
else
  admit(receiver, 1, now)
  local pause = pause_ms(redis.call('HINCRBY', receiver_key, 'fails', 1))
  redis.call('HSET', receiver_key, 'until', string.format('%.0f', now + pause))
  redis.call('PEXPIRE', receiver_key, 2 * longest_pause_ms)
end
local entries = redis.call('LRANGE', callback_ends_prefix .. url, 0, count - 1)
if result == 'accepted' then
  set_callback_field(entries, callback_field('delivered', attempts, 0))
  remove(url, entries, 'delivered')
  redis.call('DEL', delivery_key)
  schedule(url, now, 0)
  return 'delivered'
end
if result == 'gone' then
  set_callback_field(entries, callback_field('failed', attempts, 0, problem))
  remove(url, entries, 'failed')
  redis.call('DEL', delivery_key)
  schedule(url, now, 0)
  return 'failed'
end
local next_ms = now + pause_ms(redis.call('HINCRBY', delivery_key, 'fails', 1))
local _, ended = read_entry(entries[#entries])
if ended + keep_ms > now then
  set_callback_field(entries, callback_field('pending', attempts, next_ms, problem))
  redis.call('ZADD', callback_due_key, next_ms, url)
  return 'pending'
end
set_callback_field(entries, callback_field('failed', attempts, 0, problem))
remove(url, entries, 'failed')
redis.call('HDEL', delivery_key, 'id', 'count', 'attempts')
schedule(url, now, next_ms)
return 'failed'
