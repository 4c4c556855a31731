-- Returns the deletions of selected images of the collection by requests after the one with this sequence number.
local function deletions_after(collection, seq)
  local head, deletions = collection .. ' ', {}
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', deleted_images_key, '(' .. seq, '+inf')) do
    if string.sub(member, 1, #head) == head then deletions[#deletions + 1] = string.sub(member, #head + 1) end
  end
  return deletions
end
