-- Begins a life, unless Redis was lost again meanwhile.
-- ARGV: namespace, its epoch.
-- Answers '1' when it has begun.

free_first()
if redis.call('GET', ns .. ':epoch') == ARGV[2] then
  return '1'
elseif redis.call('GET', ns .. ':life:next') ~= ARGV[2] then
  return '0'
end
redis.call('DEL', ns .. ':life:next', ns .. ':life:ended')
redis.call('SET', ns .. ':epoch', ARGV[2])
return '1'
