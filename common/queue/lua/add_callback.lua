-- Adds the callback of an ended task or batch to the outbox, within the script that ends it. Returns the number of
-- dropped callbacks: 1 if too many bytes wait, else 0.
--- @include "callback_entries.lua"

-- One receiver may use a quarter of the bytes, so that a dead one leaves space for others.
local function fits(bytes, receiver)
  local all, its = unpack(redis.call('HMGET', callback_bytes_key, '', receiver))
  return (tonumber(all) or 0) + bytes <= max_callback_bytes and (tonumber(its) or 0) + bytes <= max_callback_bytes / 4
end

-- Adds an entry for the subject of this id, whose hash is `key`, with its `fields` as they are now.
local function add_entry(key, id, url, fields, wait_ms, now)
  local head = string.format('%.0f %.0f ', now + wait_ms, now)
  local entry, receiver = head .. id .. ' ' .. cjson.encode(fields), receiver_of(url)
  local bytes = entry_bytes(entry, url)
  if not fits(bytes, receiver) then
    redis.call('HSET', key, 'called', callback_field('dropped', 0, 0, 'too many callbacks were waiting'))
    redis.call('HINCRBY', callback_counts_key, 'dropped', 1)
    return 1
  end
  redis.call('HINCRBY', callback_bytes_key, '', bytes)
  redis.call('HINCRBY', callback_bytes_key, receiver, bytes)
  redis.call('HINCRBY', callback_counts_key, 'pending', 1)
  redis.call('HDEL', key, 'called')
  local waiting = redis.call('RPUSH', callback_ends_prefix .. url, entry)
  if waiting == 1 then
    redis.call('ZADD', callback_oldest_key, now, url)
    redis.call('ZADD', callback_due_key, now + wait_ms, url)
  elseif waiting == delivery_size and redis.call('EXISTS', callback_delivery_prefix .. url) == 0 then
    redis.call('ZADD', callback_due_key, now, url)
  end
  return 0
end

local function add_callback(id, url, now)
  local key, ended, names = task_prefix .. id, {}, {}
  for name in string.gmatch(ended_fields, '%S+') do names[#names + 1] = name end
  for index, value in ipairs(redis.call('HMGET', key, unpack(names))) do
    if value then ended[names[index]] = value end
  end
  local queue = redis.call('HGET', key, 'queue') or ''
  -- The names of all batch queues begin with that of the first.
  local wait_ms = string.sub(queue, 1, #batch_queue) == batch_queue and batch_linger_ms or linger_ms
  return add_entry(key, id, url, ended, wait_ms, now)
end

local function add_batch_callback(batch, url, now)
  local key, fields = batch_prefix .. batch, {}
  local values = redis.call('HGETALL', key)
  for i = 1, #values, 2 do fields[values[i]] = values[i + 1] end
  fields.callback, fields.called = nil, nil
  return add_entry(key, batch_entry .. batch, url, fields, linger_ms, now)
end
