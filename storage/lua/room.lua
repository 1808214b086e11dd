-- Makes room for an event to be entered anew, unless it is on its way: somebody may have entered it meanwhile. One of
-- which nothing is left to go on with is on no way.
-- ARGV: namespace, event, 1 when one that has come to its end may go too.
-- Answers 1 where there is room.

if is_lost() then
  return refuse()
end
local key = event_key(ARGV[2])
local state = redis.call('HMGET', key, 'cursor', 'fanned')
local has_ended = state[2] == '1' and open_chunks(ARGV[2]) <= 0
if state[1] and not (ARGV[3] == '1' and has_ended) and not is_stranded(ARGV[2]) then
  return 0
end
redis.call('DEL', key)
return 1
