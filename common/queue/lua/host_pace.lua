-- The pace of a host: limits of its downloads that adapt to its faults, over all workers. Without faults it has none.
-- `rate` is the number of downloads that may begin in a second, `slots` the number at once. Faults halve both, and each
-- success raises them: `rate` by `growth` in a second, `slots` by one for each round of downloads. No download begins
-- before `paused_until` (ms). `next_start` (ms) is the time at which the next one may begin at this rate.
local pace_keep_ms = 900000 -- after the last download, then the host has no limits again
local starts_keep_ms = 60000 -- of the count of downloads from a host without limits
local burst_ms = 500 -- an unused rate is kept for this time
local cut_every_ms = 1000 -- faults within this time are one cut
local max_streak = 3 -- faults in a row that count as a fault of the host, not of one image
local first_slots = 64
local min_rate = 0.1
local first_pause_ms = 1000 -- of a host that answers with faults only; doubles with each cut
local longest_pause_ms = 20000

local function read_pace(host, now)
  local rate, slots, next_start, paused_until, growth, cut, streak, cuts, faulty_since, window, starts, recent = unpack(
    redis.call('HMGET', host_prefix .. host, 'rate', 'slots', 'next', 'until', 'growth', 'cut', 'streak', 'cuts',
      'since', 'window', 'starts', 'recent'))
  -- Times further in the future are from before the clock was set back.
  if (tonumber(paused_until) or 0) > now + longest_retry_after_ms then paused_until = nil end
  if (tonumber(next_start) or 0) > now + longest_retry_after_ms then next_start = nil end
  return {
    key = host_prefix .. host, rate = tonumber(rate), slots = tonumber(slots),
    next_start = tonumber(next_start) or 0, paused_until = tonumber(paused_until) or 0, growth = tonumber(growth) or 1,
    cut = tonumber(cut) or 0, streak = tonumber(streak) or 0, cuts = tonumber(cuts) or 0,
    faulty_since = tonumber(faulty_since), window = tonumber(window), starts = tonumber(starts) or 0,
    recent = tonumber(recent) or 0,
  }
end

local function keep_pace(pace)
  redis.call('PEXPIRE', pace.key, pace.rate and pace_keep_ms or starts_keep_ms)
end

-- Counts a download that begins, by seconds: the measured rate is the first limit of a host.
local function count_start(pace, now)
  local age = pace.window and now - pace.window
  if age and age >= 0 and age < 1000 then
    redis.call('HINCRBY', pace.key, 'starts', 1)
    return
  end
  local recent = age and age >= 0 and pace.starts * 1000 / age or 0
  redis.call('HSET', pace.key, 'window', now, 'starts', 1, 'recent', string.format('%.3f', recent))
  keep_pace(pace)
end

-- Returns the time at which the next download may begin, as far as it depends on the host.
local function next_start_at(pace)
  return pace.rate and math.max(pace.paused_until, pace.next_start) or 0
end

-- Returns the number of downloads that may begin now, beside those in use.
local function starts_left(pace, now, in_use, max_slots)
  local left = max_slots > 0 and max_slots - in_use or math.huge
  if not pace.rate then return left end
  if now < next_start_at(pace) then return 0 end
  local from = math.max(pace.next_start, now - burst_ms)
  return math.min(left, math.floor(pace.slots) - in_use, math.floor((now - from) * pace.rate / 1000) + 1)
end

local function take_starts(pace, now, count)
  if not pace.rate or count == 0 then return end
  pace.next_start = math.max(pace.next_start, now - burst_ms) + count * 1000 / pace.rate
  redis.call('HSET', pace.key, 'next', string.format('%.3f', pace.next_start))
  keep_pace(pace)
end

-- Returns whether a task has waited since this time (ms) for as long as faults are retried, while the host answered
-- with nothing else.
local function is_given_up(pace, waits_since, now, retry_for_ms)
  if retry_for_ms == 0 or not pace.faulty_since then return false end
  return now - math.max(pace.faulty_since, tonumber(waits_since)) >= retry_for_ms
end

local function set_limits(pace, rate, slots)
  pace.rate, pace.slots = rate, slots
  redis.call('HSET', pace.key, 'rate', string.format('%.3f', rate), 'slots', string.format('%.3f', slots))
  keep_pace(pace)
end

local function report_success(pace)
  redis.call('HDEL', pace.key, 'streak', 'cuts', 'since', 'code', 'error')
  pace.faulty_since = nil
  if not pace.rate then return end
  set_limits(pace, pace.rate + pace.growth * math.min(1, 1 / pace.rate), pace.slots + 1 / pace.slots)
end

local function report_fault(pace, now, fault)
  pace.streak = redis.call('HINCRBY', pace.key, 'streak', 1)
  redis.call('HSETNX', pace.key, 'since', now)
  redis.call('HSET', pace.key, 'code', fault.code, 'error', fault.error)
  pace.faulty_since = pace.faulty_since or now
  keep_pace(pace)
  if not fault.is_rejection and pace.streak < max_streak then return end
  local pause = math.min(fault.retry_after_ms, longest_retry_after_ms)
  if math.abs(now - pace.cut) >= cut_every_ms then
    local cuts = redis.call('HINCRBY', pace.key, 'cuts', 1)
    redis.call('HSET', pace.key, 'cut', now)
    -- Without a success since the last cut, the rate is not the cause: only the pause grows.
    if cuts == 1 or not pace.rate then
      local age = pace.window and math.max(1000, now - pace.window) or 1000
      local measured = math.max(1, pace.recent, pace.starts * 1000 / age)
      local rate = math.max(min_rate, math.min(pace.rate or math.huge, measured) / 2)
      set_limits(pace, rate, math.max(1, (pace.slots or first_slots) / 2))
      redis.call('HSET', pace.key, 'growth', string.format('%.3f', math.max(1, rate / 10)))
    end
    pause = math.max(pause, math.min(longest_pause_ms, first_pause_ms * 2 ^ (cuts - 1)) * fault.jitter)
  end
  if now + pause > pace.paused_until then
    pace.paused_until = now + math.floor(pause)
    redis.call('HSET', pace.key, 'until', string.format('%.0f', pace.paused_until))
  end
end
