"""The ledger's steps, in Lua: each is done whole or not at all, whoever else is at work.

Their keys stand in `common.queue.ledger`. None is declared: which sets a task is in depends on what is found in it,
and a Redis that is split over several nodes carries no queue of ours anyway.
"""

from common.queue.callback_scripts import CALL_BACK
from common.redis.lua import EVEN_WHEN_FULL, NOW_MS

# How long a task that has a key of its sender's is remembered, from when it was accepted.
REMEMBERED_S = 86_400

_TOOLS = (
    NOW_MS
    + """
local TASK, OPEN, RUNNING, FAILED = 'match:task:', 'match:open', 'match:running', 'match:failed'
local SEQ, CLOSED, ENDED = 'match:seq', 'match:closed', 'match:ended'
local FETCHING, PARKED, CROWDED = 'match:fetching:', 'match:parked:', 'match:crowded'

-- A clock of microseconds that never goes back: after a loss of data it is still ahead of every place given before,
-- where a plain counter would start again at 1; after a clock set back it counts on from the last place.
local function next_seq(count)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local first = math.max((tonumber(redis.call('GET', SEQ)) or 0) + 1, now)
  redis.call('SET', SEQ, string.format('%.0f', first + count - 1))
  return first
end
"""
)

# Of the steps that lead to memory being freed.
_EVEN_WHEN_FULL = _TOOLS + EVEN_WHEN_FULL

TAKE_SEQ = _EVEN_WHEN_FULL + "return next_seq(1)"

# ARGV: most open tasks, queue, request id and traceparent ('' for none), then of each task its id, filepath, job, host
# ('' where it needs no place), URL to call back ('' for none) and, where its id may be known already, fingerprint, else
# ''. Returns false where there is no room; else the first place, the time and, where some were known, of each task the
# fingerprint that it has, '' for a new one.
ACCEPT = (
    _TOOLS
    + f"""
local count, known, fresh = (#ARGV - 4) / 6, {{}}, 0
for i = 1, count do
  local mark = ARGV[4 + 6 * i]
  known[i] = mark ~= '' and redis.call('HGET', TASK .. ARGV[6 * i - 1], 'fingerprint') or ''
  if known[i] == '' then fresh = fresh + 1 end
end
if redis.call('ZCARD', OPEN) + fresh > tonumber(ARGV[1]) then return false end
local first, now = next_seq(count), now_ms()
for i = 1, count do
  if known[i] == '' then
    local id, filepath, job, host, callback, mark = unpack(ARGV, 6 * i - 1, 6 * i + 4)
    redis.call('HSET', TASK .. id, 'state', 'pending', 'filepath', filepath, 'job', job,
      'queue', ARGV[2], 'seq', string.format('%.0f', first + i - 1), 'accepted', now)
    if ARGV[3] ~= '' then redis.call('HSET', TASK .. id, 'request', ARGV[3]) end
    if ARGV[4] ~= '' then redis.call('HSET', TASK .. id, 'trace', ARGV[4]) end
    if host ~= '' then redis.call('HSET', TASK .. id, 'host', host) end
    if callback ~= '' then redis.call('HSET', TASK .. id, 'callback', callback) end
    if mark ~= '' then
      redis.call('HSET', TASK .. id, 'fingerprint', mark, 'remembered', now + {REMEMBERED_S * 1000})
    end
    redis.call('ZADD', OPEN, now, id)
  end
end
return fresh < count and {{first, now, known}} or {{first, now}}
"""
)

_PLACES = """
local function keep_place(host, id, until_ms, lease_ms)
  redis.call('ZADD', FETCHING .. host, until_ms, id)
  redis.call('PEXPIRE', FETCHING .. host, lease_ms)
end

local function places_taken(host, now, lease_ms)
  redis.call('ZREMRANGEBYSCORE', FETCHING .. host, '-inf', now)
  -- One that lasts longer than it can was given before the clock was set back.
  redis.call('ZREMRANGEBYSCORE', FETCHING .. host, '(' .. now + lease_ms, '+inf')
  return redis.call('ZCARD', FETCHING .. host)
end

-- Takes from those that wait for the host as many as it has places for, the first queue's before the second's and the
-- oldest request first. Each has its place from now on, so that none is woken for nothing.
local function wake(host, limit, most, lease_ms, queues)
  local now, woken = now_ms(), {}
  local free = limit > 0 and limit - places_taken(host, now, lease_ms) or most
  for _, queue in ipairs(queues) do
    while free > 0 do
      local id = redis.call('ZPOPMIN', PARKED .. queue .. ':' .. host)[1]
      if not id then break end
      if redis.call('ZSCORE', OPEN, id) then
        redis.call('ZADD', OPEN, now, id)
        if limit > 0 then keep_place(host, id, now + lease_ms, lease_ms) end
        woken[#woken + 1], woken[#woken + 2] = id, queue
        free = free - 1
      end
    end
  end
  if free > 0 then redis.call('SREM', CROWDED, host) end
  return {now, woken}
end
"""

# ARGV: id, most downloads from a host (0: any), how long a place is kept (ms).
# False for a task that is closed or unknown: there is no work left; empty for one that now waits for its host.
BEGIN = (
    _EVEN_WHEN_FULL
    + _PLACES
    + """
local id, limit, lease_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local key, now = TASK .. ARGV[1], now_ms()
local state, seq, job, host, queue, request, trace = unpack(
  redis.call('HMGET', key, 'state', 'seq', 'job', 'host', 'queue', 'request', 'trace'))
if state ~= 'pending' and state ~= 'running' then return false end
if host and limit > 0 then
  if places_taken(host, now, lease_ms) >= limit and not redis.call('ZSCORE', FETCHING .. host, id) then
    redis.call('HSET', key, 'state', 'pending')
    redis.call('HDEL', key, 'started')
    redis.call('ZREM', RUNNING, id)
    redis.call('ZADD', OPEN, now, id)
    redis.call('ZADD', PARKED .. queue .. ':' .. host, seq, id)
    redis.call('SADD', CROWDED, host)
    return {}
  end
  keep_place(host, id, now + lease_ms, lease_ms)
  redis.call('ZREM', PARKED .. queue .. ':' .. host, id)
end
redis.call('HSET', key, 'state', 'running', 'started', now)
redis.call('HINCRBY', key, 'attempts', 1)
redis.call('ZADD', RUNNING, now, id)
return {seq, job, limit > 0 and host or '', request or '', trace or ''}
"""
)

# ARGV: host, most downloads from it, most to wake where any number may go, how long a place is kept (ms),
# id ('' when none leaves), then the queues in the order in which they are worked.
LEAVE = (
    _EVEN_WHEN_FULL
    + _PLACES
    + """
redis.call('ZREM', FETCHING .. ARGV[1], ARGV[5])
return wake(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), {unpack(ARGV, 6)})
"""
)

# ARGV: id, id of the picture that the same process decoded before ('' for none): it has survived that.
RISK = (
    _EVEN_WHEN_FULL
    + """
if ARGV[2] ~= '' then redis.call('HDEL', TASK .. ARGV[2], 'risks') end
if redis.call('EXISTS', TASK .. ARGV[1]) == 0 then return 0 end
return redis.call('HINCRBY', TASK .. ARGV[1], 'risks', 1)
"""
)

GIVE_BACK = (
    _EVEN_WHEN_FULL
    + """
if redis.call('HGET', TASK .. ARGV[1], 'state') ~= 'running' then return end
redis.call('HSET', TASK .. ARGV[1], 'state', 'pending')
redis.call('HDEL', TASK .. ARGV[1], 'started')
redis.call('ZREM', RUNNING, ARGV[1])
-- Its message goes to the end of the queue now.
redis.call('ZADD', OPEN, 'XX', now_ms(), ARGV[1])
"""
)

_EXPIRE = """
local function expire(key, keep_s, remembered, now)
  redis.call('EXPIRE', key, math.max(tonumber(keep_s), math.ceil(((tonumber(remembered) or 0) - now) / 1000)))
end
"""

# ARGV: seconds to keep finished and failed tasks, most bytes of callbacks that may wait, then id, state, code and error
# of each task. Returns how many callbacks were dropped for want of room.
CLOSE = (
    _EVEN_WHEN_FULL
    + CALL_BACK
    + _EXPIRE
    + """
local now, ended, dropped = now_ms(), {}, 0
for i = 4, #ARGV, 4 do
  local id, state = ARGV[i], ARGV[i + 1]
  local key = TASK .. id
  local was, callback, remembered = unpack(redis.call('HMGET', key, 'state', 'callback', 'remembered'))
  local stored_after_all = was == 'failed' and (state == 'succeeded' or state == 'superseded')
  if stored_after_all then
    redis.call('HDEL', key, 'code', 'error')
    redis.call('ZREM', FAILED, id)
  end
  if was == 'pending' or was == 'running' or stored_after_all then
    local outcome = state .. ':' .. ARGV[i + 2]
    ended[outcome] = (ended[outcome] or 0) + 1
    redis.call('HSET', key, 'state', state, 'finished', now)
    if state == 'failed' then
      redis.call('HSET', key, 'code', ARGV[i + 2], 'error', ARGV[i + 3])
      redis.call('ZADD', FAILED, now, id)
      expire(key, ARGV[2], remembered, now)
    else
      -- It may hold much metadata, and nobody will ask for it again.
      redis.call('HDEL', key, 'job')
      expire(key, ARGV[1], remembered, now)
    end
    if callback then dropped = dropped + call_back(id, callback, now, tonumber(ARGV[3])) end
  end
  redis.call('ZREM', OPEN, id)
  redis.call('ZREM', RUNNING, id)
  redis.call('PUBLISH', CLOSED, id)
end
for outcome, count in pairs(ended) do redis.call('HINCRBY', ENDED, outcome, count) end
return dropped
"""
)

# ARGV: id, seconds to keep it, most bytes of callbacks that may wait. Returns the state that it had, false where it is
# unknown.
CANCEL = (
    _EVEN_WHEN_FULL
    + CALL_BACK
    + _EXPIRE
    + """
local id, key, now = ARGV[1], TASK .. ARGV[1], now_ms()
local state, host, queue, callback, remembered = unpack(
  redis.call('HMGET', key, 'state', 'host', 'queue', 'callback', 'remembered'))
if state ~= 'pending' then return state end
redis.call('HSET', key, 'state', 'cancelled', 'finished', now)
redis.call('HDEL', key, 'job')
expire(key, ARGV[2], remembered, now)
if callback then call_back(id, callback, now, tonumber(ARGV[3])) end
redis.call('ZREM', OPEN, id)
redis.call('HINCRBY', ENDED, 'cancelled:', 1)
if host then
  redis.call('ZREM', PARKED .. queue .. ':' .. host, id)
  redis.call('ZREM', FETCHING .. host, id)
end
redis.call('PUBLISH', CLOSED, id)
return state
"""
)

# ARGV: the longest time since a task was accepted (ms), then the ids. Returns the time, and of each task what it was
# and its queue: only one that was 'failed' is open again.
RETRY = (
    _EVEN_WHEN_FULL
    + """
local now, outcomes = now_ms(), {}
for i = 2, #ARGV do
  local id, key = ARGV[i], TASK .. ARGV[i]
  local state, accepted, queue, emptied = unpack(redis.call('HMGET', key, 'state', 'accepted', 'queue', 'emptied'))
  local outcome = state or 'unknown'
  if state == 'failed' and now - accepted > tonumber(ARGV[1]) then
    outcome = 'late'
  elseif state == 'failed' and emptied then
    outcome = 'emptied'
  elseif state == 'failed' then
    redis.call('HSET', key, 'state', 'pending')
    redis.call('HDEL', key, 'code', 'error', 'started', 'finished', 'risks', 'called')
    redis.call('PERSIST', key)
    redis.call('ZREM', FAILED, id)
    redis.call('ZADD', OPEN, now, id)
  end
  outcomes[#outcomes + 1], outcomes[#outcomes + 2] = outcome, queue or ''
end
return {now, outcomes}
"""
)

# ARGV: ids. Returns those that have failed; none of them is opened again any more.
EMPTY = (
    _EVEN_WHEN_FULL
    + """
local emptied = {}
for _, id in ipairs(ARGV) do
  if redis.call('HGET', TASK .. id, 'state') == 'failed' then
    redis.call('HSET', TASK .. id, 'emptied', 1)
    emptied[#emptied + 1] = id
  end
end
return emptied
"""
)

# ARGV: set, state, score and id after which to go on ('' to begin), most to return, most to look at,
# code and start of the filepath ('' for any), then the fields to return.
# Returns rows of score, id and those fields, and the score and id to go on after, none at the end.
PAGE = (
    _TOOLS
    + """
local set, state, score, id, limit, most, code, prefix = unpack(ARGV, 1, 8)
local start, rows = 0, {}
if id ~= '' then
  local rank = redis.call('ZREVRANK', set, id)
  if rank and tonumber(redis.call('ZSCORE', set, id)) == tonumber(score) then
    start = rank + 1
  else
    -- It has left, or moved up: on from those of its time.
    start = redis.call('ZCOUNT', set, '(' .. score, '+inf')
  end
end
local ids = redis.call('ZREVRANGE', set, start, start + most - 1, 'WITHSCORES')
for i = 1, #ids, 2 do
  id, score = ids[i], ids[i + 1]
  start = start + 1
  local found = redis.call('HMGET', TASK .. id, 'state', 'code', 'filepath')
  local fits = found[1] == state and (code == '' or found[2] == code)
  if fits and string.sub(found[3], 1, #prefix) == prefix then
    rows[#rows + 1] = {id, redis.call('HMGET', TASK .. id, unpack(ARGV, 9))}
    if #rows == tonumber(limit) then break end
  end
end
if start < redis.call('ZCARD', set) and #ids > 0 then return {rows, score, id} end
return {rows}
"""
)

# ARGV: new stamp, then id and last stamp of each task. Returns the ids whose stamp is still that one: the caller is the
# first to find them. One that waits for its host has no message, and needs none yet.
RESTAMP = (
    _TOOLS
    + """
local won = {}
for i = 2, #ARGV, 2 do
  local stamp = redis.call('ZSCORE', OPEN, ARGV[i])
  if stamp and tonumber(stamp) == tonumber(ARGV[i + 1]) then
    redis.call('ZADD', OPEN, ARGV[1], ARGV[i])
    local host, queue = unpack(redis.call('HMGET', TASK .. ARGV[i], 'host', 'queue'))
    if not (host and redis.call('ZSCORE', PARKED .. queue .. ':' .. host, ARGV[i])) then
      won[#won + 1] = ARGV[i]
    end
  end
end
return won
"""
)

# ARGV: most to look at. Returns how many open tasks were last sent after now: the clock was set back since. As it goes
# now they are sent now, or else they would be nobody's loss until it has caught up.
TAKE_BACK = (
    _TOOLS
    + """
local now = now_ms()
local ahead = redis.call('ZRANGEBYSCORE', OPEN, '(' .. now, '+inf', 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ahead) do redis.call('ZADD', OPEN, now, id) end
return #ahead
"""
)

# ARGV: name, milliseconds. One that lasts longer than it can was given before the clock was set back.
LEASE = (
    _EVEN_WHEN_FULL
    + """
if redis.call('PTTL', ARGV[1]) > tonumber(ARGV[2]) then redis.call('DEL', ARGV[1]) end
return redis.call('SET', ARGV[1], 1, 'NX', 'PX', ARGV[2])
"""
)
