-- Cancels pending tasks. Returns the state of each before the call; '' for an unknown one.
local open_key = KEYS[1]
local ended_key = KEYS[2]
local callback_due_key = KEYS[3]
local callback_bytes_key = KEYS[4]
local callback_counts_key = KEYS[5]
local callback_oldest_key = KEYS[6]
local open_by_collection_key = KEYS[7]
local batch_queue_of_key = KEYS[8]
local batch_ends_key = KEYS[9]
local deferred_key = KEYS[10]
local deferred_by_host_key = KEYS[11]
local task_prefix = ARGV[1]
local deleted_images_prefix = ARGV[2]
local slots_prefix = ARGV[3]
local waiting_prefix = ARGV[4]
local callback_ends_prefix = ARGV[5]
local callback_delivery_prefix = ARGV[6]
local closed_channel = ARGV[7]
local finished_keep_s = tonumber(ARGV[8])
local max_callback_bytes = tonumber(ARGV[9])
local delivery_size = tonumber(ARGV[10])
local linger_ms = tonumber(ARGV[11])
local batch_linger_ms = tonumber(ARGV[12])
local batch_queue = ARGV[13]
local ended_fields = ARGV[14]
local default_collection = ARGV[15]
local batch_prefix = ARGV[16]
local rate_window_ms = tonumber(ARGV[17])
local failed_keep_s = tonumber(ARGV[18])
local ended_tasks_prefix = ARGV[19]
local ids_from = 20

--- @include "../../redis/lua/allow_oom.lua"
--- @include "../../redis/lua/now_ms.lua"
--- @include "expire.lua"
--- @include "add_callback.lua"
--- @include "open_tasks.lua"
--- @include "deferred_tasks.lua"
--- @include "batch_ends.lua"
--- @include "ended_tasks.lua"

local now, states, batches, closed = now_ms(), {}, {}, {}
for i = ids_from, #ARGV do
  local id, key = ARGV[i], task_prefix .. ARGV[i]
  local state, host, queue, callback, remembered, collection, batch, uncounted, action, seq = unpack(redis.call('HMGET',
    key, 'state', 'host', 'queue', 'callback', 'remembered', 'collection', 'batch', 'uncounted', 'action', 'seq'))
  states[#states + 1] = state or ''
  if state == 'pending' then
    redis.call('HSET', key, 'state', 'cancelled', 'finished', now)
    redis.call('HDEL', key, 'job', 'next')
    remove_deferred(id, host)
    expire(key, finished_keep_s, remembered, now)
    list_ended('cancelled', id, now)
    if batch then
      local changes = changes_of(batches, batch)
      changes.open = (changes.open or 0) - 1
      add_state(changes, 'cancelled', nil, 1, uncounted)
    end
    if callback then add_callback(id, callback, now) end
    collection = collection or default_collection
    -- A worker may have begun it before: earlier adds begin again.
    if action == 'delete_images' then
      redis.call('ZREMRANGEBYSCORE', deleted_images_prefix .. collection, seq, seq)
    end
    closed[collection] = (closed[collection] or 0) + redis.call('ZREM', open_key, id)
    redis.call('HINCRBY', ended_key, 'cancelled:', 1)
    if host then
      redis.call('ZREM', waiting_prefix .. queue .. ':' .. host, id)
      redis.call('ZREM', slots_prefix .. host, id)
    end
    redis.call('PUBLISH', closed_channel, id)
  end
end
for collection, count in pairs(closed) do count_open(collection, -count) end
count_ends(batches, now)
return states
