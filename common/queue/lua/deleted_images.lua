-- Returns the deletions of selected images of the collection by requests after the one with this sequence number.
local function deletions_after(collection, seq)
  return redis.call('ZRANGEBYSCORE', deleted_images_prefix .. collection, '(' .. seq, '+inf')
end
