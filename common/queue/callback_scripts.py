"""The outbox's steps, in Lua: what is written in the step that ends a task, and what deliverers do with it.

Their keys stand in `common.queue.callbacks`. An entry is a text: when it is to be sent (ms), when the task ended
(ms), its id, and what the ledger held of it then as JSON, parted by spaces.
"""

from common.redis.lua import EVEN_WHEN_FULL, NOW_MS

# What is told of a task that has ended, by the fields of its hash.
ENDED_FIELDS = ("state", "filepath", "seq", "accepted", "started", "finished", "attempts", "code", "error", "request")
# How long an end waits for others that go to the same URL (ms): a batch's longer, so that they fill a delivery.
LINGER_MS = 1000
LINGER_BATCH_MS = 5000
# Most ends in a delivery.
TOGETHER = 100
# What an entry costs at most beside its own bytes: its URL stands in three keys where no other entry has the same.
ENTRY_BYTES = 512
URL_TIMES = 3
# Of all the bytes that may wait, one receiver's: another one still finds room when that one is dead.
SHARE = 4

# What stands in a task's field `called`: state, attempts, when the next is (ms, 0 for none), and what went wrong.
_KEYS = """
local DUE, ENDS, DELIVERY = 'match:callbacks:due', 'match:callbacks:ends:', 'match:callbacks:delivery:'
local BYTES, RECEIVER, AT = 'match:callbacks:bytes', 'match:callbacks:receiver:', 'match:callbacks:at:'
local PARKED, COUNTS, OLDEST = 'match:callbacks:parked:', 'match:callbacks:counts', 'match:callbacks:oldest'

local function receiver_of(url)
  return string.match(url, '^%a+://([^/]*)')
end

local function called(state, attempts, next_ms, problem)
  return state .. ' ' .. attempts .. ' ' .. string.format('%.0f', next_ms) .. ' ' .. (problem or '')
end
"""

# `call_back` writes that a task has ended, for the URL that its sender gave.
CALL_BACK = (
    _KEYS
    + f"""
local function fits(bytes, receiver, most)
  local all, its = unpack(redis.call('HMGET', BYTES, '', receiver))
  return (tonumber(all) or 0) + bytes <= most and (tonumber(its) or 0) + bytes <= most / {SHARE}
end

local function call_back(id, url, now, most)
  local key, ended, names = TASK .. id, {{}}, {{{", ".join(f"'{name}'" for name in ENDED_FIELDS)}}}
  for place, value in ipairs(redis.call('HMGET', key, unpack(names))) do
    if value then ended[names[place]] = value end
  end
  local linger = redis.call('HGET', key, 'queue') == 'match-batch' and {LINGER_BATCH_MS} or {LINGER_MS}
  local head = string.format('%.0f %.0f ', now + linger, now)
  local entry, receiver = head .. id .. ' ' .. cjson.encode(ended), receiver_of(url)
  local bytes = #entry + {URL_TIMES} * #url + {ENTRY_BYTES}
  if not fits(bytes, receiver, most) then
    redis.call('HSET', key, 'called', called('dropped', 0, 0, 'too many callbacks were waiting'))
    redis.call('HINCRBY', COUNTS, 'dropped', 1)
    return 1
  end
  redis.call('HINCRBY', BYTES, '', bytes)
  redis.call('HINCRBY', BYTES, receiver, bytes)
  redis.call('HINCRBY', COUNTS, 'pending', 1)
  redis.call('HDEL', key, 'called')
  local waiting = redis.call('RPUSH', ENDS .. url, entry)
  if waiting == 1 then
    redis.call('ZADD', OLDEST, now, url)
    redis.call('ZADD', DUE, now + linger, url)
  elseif waiting == {TOGETHER} and redis.call('EXISTS', DELIVERY .. url) == 0 then
    redis.call('ZADD', DUE, now, url)
  end
  return 0
end
"""
)

# What is done with these frees memory.
_TOOLS = (
    EVEN_WHEN_FULL
    + NOW_MS
    + _KEYS
    + f"""
local TASK = 'match:task:'

local function read(entry)
  local due, ended, id = string.match(entry, '^(%d+) (%d+) (%S+) ')
  return tonumber(due), tonumber(ended), id
end

-- Tells on the tasks what became of these ends of theirs, unless they were retried since.
local function tell(entries, text)
  for _, entry in ipairs(entries) do
    local _, ended, id = read(entry)
    if tonumber(redis.call('HGET', TASK .. id, 'finished') or 0) == ended then
      redis.call('HSET', TASK .. id, 'called', text)
    end
  end
end

-- Takes out these ends, which have come to this state.
local function forget(url, entries, state)
  local bytes, receiver = 0, receiver_of(url)
  for _, entry in ipairs(entries) do bytes = bytes + #entry + {URL_TIMES} * #url + {ENTRY_BYTES} end
  redis.call('LTRIM', ENDS .. url, #entries, -1)
  redis.call('HINCRBY', COUNTS, 'pending', -#entries)
  redis.call('HINCRBY', COUNTS, state, #entries)
  redis.call('HINCRBY', BYTES, '', -bytes)
  if redis.call('HINCRBY', BYTES, receiver, -bytes) <= 0 then redis.call('HDEL', BYTES, receiver) end
end

-- Says when what waits for the URL is to be sent, not before `soonest`; false where nothing does.
local function go_on(url, now, soonest)
  local waiting = redis.call('LLEN', ENDS .. url)
  if waiting == 0 then
    redis.call('ZREM', DUE, url)
    redis.call('ZREM', OLDEST, url)
    redis.call('DEL', DELIVERY .. url)
    return false
  end
  local due, ended = read(redis.call('LINDEX', ENDS .. url, 0))
  redis.call('ZADD', OLDEST, ended, url)
  redis.call('ZADD', DUE, math.max(waiting >= {TOGETHER} and now or due, soonest), url)
  return true
end

-- Makes due what waits for a place at the receiver, the longest waiting first. Each URL that goes calls for another, so
-- that those that wait are never looked at in vain, and never left alone.
local function wake(receiver, count, now)
  for _ = 1, count do
    local url = redis.call('ZPOPMIN', PARKED .. receiver)[1]
    if not url then return end
    redis.call('ZADD', DUE, now, url)
  end
end

local function pause_ms(failures, first, longest, jitter)
  return math.floor(math.min(longest, first * 2 ^ math.min(failures - 1, 30)) * jitter)
end
"""
)

# ARGV: a new delivery's id, how long it is this caller's (ms), most deliveries to a receiver at once, how long an end
# is worth sending (ms), most URLs to look at. Returns URL, id, number of the attempt and entries of a delivery; empty
# where there may be another one at once; false where there is none now.
CLAIM = (
    _TOOLS
    + f"""
local now, lease, keep = now_ms(), tonumber(ARGV[2]), tonumber(ARGV[4])
local urls = redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, ARGV[5])
for _, url in ipairs(urls) do
  local receiver, delivery = receiver_of(url), DELIVERY .. url
  local fails, rests = unpack(redis.call('HMGET', RECEIVER .. receiver, 'fails', 'until'))
  redis.call('ZREMRANGEBYSCORE', AT .. receiver, '-inf', now)
  if (tonumber(rests) or 0) > now then
    redis.call('ZADD', DUE, rests, url)
  elseif redis.call('LLEN', ENDS .. url) == 0 then
    go_on(url, now, 0)
    wake(receiver, 1, now)
  elseif redis.call('ZCARD', AT .. receiver) >= (fails and 1 or tonumber(ARGV[3])) then
    redis.call('ZREM', DUE, url)
    redis.call('ZADD', PARKED .. receiver, now, url)
  else
    local id, count, failed = unpack(redis.call('HMGET', delivery, 'id', 'count', 'fails'))
    if failed and not id then
      -- It was given up on before: what has waited for as long is not tried any more.
      local old = {{}}
      for _, entry in ipairs(redis.call('LRANGE', ENDS .. url, 0, {TOGETHER} - 1)) do
        local _, ended = read(entry)
        if ended + keep > now then break end
        old[#old + 1] = entry
      end
      tell(old, called('failed', 0, 0, 'the receiver took nothing in time'))
      forget(url, old, 'failed')
      if #old > 0 then
        if go_on(url, now, 0) then redis.call('ZADD', DUE, now, url) else wake(receiver, 1, now) end
        return {{}}
      end
    end
    if not id then
      id, count = ARGV[1], math.min({TOGETHER}, redis.call('LLEN', ENDS .. url))
      redis.call('HSET', delivery, 'id', id, 'count', count)
    end
    redis.call('ZREM', PARKED .. receiver, url)
    redis.call('ZADD', DUE, now + lease, url)
    redis.call('ZADD', AT .. receiver, now + lease, url)
    redis.call('PEXPIRE', AT .. receiver, lease)
    local attempt = redis.call('HINCRBY', delivery, 'attempts', 1)
    return {{url, id, attempt, redis.call('LRANGE', ENDS .. url, 0, count - 1)}}
  end
end
return #urls == tonumber(ARGV[5]) and {{}}
"""
)

# ARGV: URL, id, number of the attempt, how it ended ('taken', 'gone' or 'failed'), whether the receiver answered at
# all (1 or 0), what went wrong, first and longest pause (ms), what to multiply it by, how long an end is worth sending
# (ms), most deliveries to a receiver at once.
# Returns what the delivery came to: 'delivered', 'failed' or 'pending'; false where it is not this caller's any more.
REPORT = (
    _TOOLS
    + """
local url, now, outcome, problem = ARGV[1], now_ms(), ARGV[4], ARGV[6]
local first, longest, jitter, keep = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local delivery, receiver = DELIVERY .. url, RECEIVER .. receiver_of(url)
local id, attempts, count = unpack(redis.call('HMGET', delivery, 'id', 'attempts', 'count'))
if id ~= ARGV[2] or attempts ~= ARGV[3] then return false end
redis.call('ZREM', AT .. receiver_of(url), url)
if ARGV[5] == '1' then
  redis.call('DEL', receiver)
  wake(receiver_of(url), tonumber(ARGV[11]) - redis.call('ZCARD', AT .. receiver_of(url)), now)
else
  wake(receiver_of(url), 1, now)
  local pause = pause_ms(redis.call('HINCRBY', receiver, 'fails', 1), first, longest, jitter)
  redis.call('HSET', receiver, 'until', string.format('%.0f', now + pause))
  redis.call('PEXPIRE', receiver, 2 * longest)
end
local entries = redis.call('LRANGE', ENDS .. url, 0, count - 1)
if outcome == 'taken' then
  tell(entries, called('delivered', attempts, 0))
  forget(url, entries, 'delivered')
  redis.call('DEL', delivery)
  go_on(url, now, 0)
  return 'delivered'
end
if outcome == 'gone' then
  tell(entries, called('failed', attempts, 0, problem))
  forget(url, entries, 'failed')
  redis.call('DEL', delivery)
  go_on(url, now, 0)
  return 'failed'
end
local next_ms = now + pause_ms(redis.call('HINCRBY', delivery, 'fails', 1), first, longest, jitter)
local _, ended = read(entries[#entries])
if ended + keep > now then
  tell(entries, called('pending', attempts, next_ms, problem))
  redis.call('ZADD', DUE, next_ms, url)
  return 'pending'
end
tell(entries, called('failed', attempts, 0, problem))
forget(url, entries, 'failed')
redis.call('HDEL', delivery, 'id', 'count', 'attempts')
go_on(url, now, next_ms)
return 'failed'
"""
)
