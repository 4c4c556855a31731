-- Counters of batches. A script that changes the state of a task changes the counters of its batch in the same step.
-- The hash of a batch has the number of its tasks, `total`, of those that can still change, `open`, and of those in
-- each state except pending; `code:<code>` counts failures. A counter of 0 is absent.

-- Adds the tasks that enter a state, or leave it for a negative `count`, to the table `changes` of counters. An
-- uncounted task directs the work of its batch: of its states only a failure counts.
local function add_state(changes, state, code, count, uncounted)
  if uncounted and state ~= 'failed' then return end
  if uncounted then changes.total = (changes.total or 0) + count end
  changes[state] = (changes[state] or 0) + count
  if state == 'failed' then
    local name = 'code:' .. code
    changes[name] = (changes[name] or 0) + count
  end
end

-- Returns the table of changes of a batch's counters, which is added to `changes_by_batch` at the first call.
local function changes_of(changes_by_batch, batch)
  changes_by_batch[batch] = changes_by_batch[batch] or {}
  return changes_by_batch[batch]
end

-- Applies changes to the counters of a batch; does nothing if its record does not exist.
local function count_in_batch(batch, changes)
  local key = batch_prefix .. batch
  if redis.call('EXISTS', key) == 0 then return end
  for name, change in pairs(changes) do
    if change ~= 0 and redis.call('HINCRBY', key, name, change) == 0 then redis.call('HDEL', key, name) end
  end
end

-- Returns the number of ended tasks of a batch.
local function ended_in_batch(key)
  local ended = 0
  for _, count in ipairs(redis.call('HMGET', key, 'succeeded', 'superseded', 'failed', 'cancelled')) do
    ended = ended + (tonumber(count) or 0)
  end
  return ended
end
