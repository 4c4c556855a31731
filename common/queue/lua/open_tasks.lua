-- Changes the number of open tasks of a collection. A collection without open tasks has no batch queue.
local function count_open(collection, change)
  if change ~= 0 and redis.call('HINCRBY', open_by_collection_key, collection, change) <= 0 then
    redis.call('HDEL', open_by_collection_key, collection)
    redis.call('HDEL', batch_queue_of_key, collection)
  end
end
