-- Says that this Redis was emptied or is an older one: no life has begun until its rebuild is done.
-- ARGV: namespace, the epoch that was found and is not right or '', randomness.
-- Answers the epoch of the life to come, "<ms of the loss>-<randomness>"; '' when another epoch is there by now.

free_first()
local found = redis.call('GET', ns .. ':epoch')
if found then
  if found ~= ARGV[2] then
    return ''
  end
  redis.call('DEL', ns .. ':epoch')
end
redis.call('SET', ns .. ':life:next', int(now) .. '-' .. ARGV[3], 'NX')
return redis.call('GET', ns .. ':life:next')
