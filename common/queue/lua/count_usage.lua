-- Adds counts to those of the current day (UTC). A repeated call, after a reply was lost, changes nothing.
local usage_prefix = ARGV[1]
local usage_writer_prefix = ARGV[2]
local max_fields = tonumber(ARGV[3])
local keep_s = tonumber(ARGV[4])
local day_ms = tonumber(ARGV[5])
local other_label = ARGV[6] -- of the counts beyond `max_fields`
local first_count = ARGV[7] -- the count that every label has
local writer = ARGV[8]
local number = ARGV[9] -- of the call, ascending
local counts_from = 10 -- of each: label, name, count

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"

local now = now_ms()
local writer_key = usage_writer_prefix .. writer
if (tonumber(redis.call('GET', writer_key)) or 0) >= tonumber(number) then return false end
redis.call('SET', writer_key, number, 'EX', keep_s)
local day_key = usage_prefix .. string.format('%.0f', math.floor(now / day_ms))
for at = counts_from, #ARGV, 3 do
  local label, name, count = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local is_new = redis.call('HEXISTS', day_key, label .. '|' .. first_count) == 0
  if is_new and redis.call('HLEN', day_key) >= max_fields then label = other_label end
  redis.call('HINCRBY', day_key, label .. '|' .. first_count, 0)
  redis.call('HINCRBY', day_key, label .. '|' .. name, count)
end
redis.call('EXPIRE', day_key, keep_s)
return true
