-- Says that a process runs actors, and on which queues it works: also at the memory limit, where it drains.
-- ARGV: namespace, process, for how many seconds that is true, queues…

free_first()
local processes, seconds = ns .. ':processes', tonumber(clock[1])
local ends = int(seconds + tonumber(ARGV[3]))
redis.call('ZADD', processes, ends, ARGV[2])
redis.call('ZREMRANGEBYSCORE', processes, '-inf', int(seconds - 1))
for position = 4, #ARGV do
  redis.call('ZADD', ns .. ':queues', ends, ARGV[position])
end
return 1
