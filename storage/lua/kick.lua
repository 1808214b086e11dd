-- Puts a call into an actor's Dramatiq queue, unless enough calls wait there, and wakes whoever consumes it. The layout
-- is Dramatiq's own: the message in the hash `queue.msgs`, its id at the list's tail.
-- ARGV: namespace, queue, most waiting (0 for no limit), id of the message as queued, message.

local queue, most = ns .. ':dramatiq:' .. ARGV[2], tonumber(ARGV[3])
if redis.call('HEXISTS', queue .. '.msgs', ARGV[4]) == 1 then
  return 1 -- this call was sent before
end
if most > 0 and redis.call('LLEN', queue) >= most then
  return 0
end
redis.call('HSET', queue .. '.msgs', ARGV[4], ARGV[5])
redis.call('RPUSH', queue, ARGV[4])
redis.call('PUBLISH', ns .. ':wake', ARGV[2])
return 1
