-- Lets go of a filter: all that it stopped has a mark of its own, or has come to its end.
-- ARGV: namespace, cancellation.
-- Answers how many events it has marked.

free_first()
local stops, asked = ns .. ':stops', ARGV[2]
local told = redis.call('HMGET', stops, asked .. ':place', asked .. ':events')
if told[1] then
  local kept = ''
  for other, range in string.gmatch(redis.call('HGET', stops, told[1]) or '', '([^,;]+),([^;]+);') do
    if other ~= asked then
      kept = kept .. other .. ',' .. range .. ';'
    end
  end
  if kept == '' then
    redis.call('HDEL', stops, told[1])
  else
    redis.call('HSET', stops, told[1], kept)
  end
  redis.call('HDEL', stops, asked, asked .. ':place', asked .. ':keep', asked .. ':events')
end
return tonumber(told[2] or 0)
