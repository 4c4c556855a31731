-- Returns the batch queue for new tasks of a collection: the queue of its open tasks. With more messages in it than the
-- collection has open tasks, other collections wait there too: then it is the shortest queue, of equal ones the next
-- after `first`.
local function choose_batch_queue(collection, open, first)
  local queue = redis.call('HGET', batch_queue_of_key, collection)
  if queue and redis.call('LLEN', queue) <= open then return queue end
  local shortest
  for i = 0, batch_queue_count - 1 do
    local number = (first + i) % batch_queue_count
    local name = number == 0 and batch_queue or batch_queue .. '-' .. number
    local length = redis.call('LLEN', name)
    if not shortest or length < shortest then queue, shortest = name, length end
  end
  redis.call('HSET', batch_queue_of_key, collection, queue)
  return queue
end
