-- Takes an event in: its content, its recipients, its place in `due`, and its fact where Postgres has it not yet.
-- ARGV: namespace, event, content, type, mandatory, guard_ms, fact or '', 1 when these are all recipients, again,
--       audience, then the recipients as JSON. Where they are all, what Redis does not know as given inline was not.
--       `again` is '', or after a loss "<how many were routed before>|<'exact' or 'doubt:<ms>'>" (route.lua); `audience` is ''
--       for an event that has none, else "<how many recipients were named>|<horizon>" (fan_out.lua).
-- Answers 1, or 0 when the event is there already (this call was sent before); one that has fallen out of `due` is
-- entered there again.

local event, content, kind, mandatory, guard, fact = ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
local before, again = string.match(ARGV[9], '^(%d+)|(.+)$')
local named, horizon = string.match(ARGV[10], '^(%d+)|(.*)$')
local key = event_key(event)
-- Postgres counts how often an event was entered; what is told of it says which time it is (event.lua).
local generation = string.match(content, '^{"id":"[^"]*","generation":(%d+)') or '0'
if fact == '' and is_lost() then
  -- Postgres has it: the rebuild enters it, or a job does. A call that comes late would enter it once more.
  return refuse()
end
if is_rebuilding() then
  if is_lost() then
    return refuse()
  end
  -- Whoever took it in meanwhile took it in whole.
  redis.call('DEL', key, ns .. ':recipients:' .. event)
end
-- Content alone may be there for deliveries of it (content.lua).
if redis.call('HEXISTS', key, 'cursor') == 1 then
  if redis.call('HGET', key, 'fanned') == '0' and not redis.call('ZSCORE', ns .. ':due', 'e:' .. event) then
    redis.call('ZADD', ns .. ':due', int(now + guard), 'e:' .. event)
  end
  return 0
end
-- What removes something must not come first, or this would pass at the memory limit; and the event itself comes after
-- the rest, for until it is there this call can be made again.
redis.call('ZADD', ns .. ':due', int(now + guard), 'e:' .. event)
redis.call('DEL', ns .. ':recipients:' .. event)
for first = 11, #ARGV, 100 do
  redis.call('RPUSH', ns .. ':recipients:' .. event, unpack(ARGV, first, math.min(first + 99, #ARGV)))
end
redis.call('HSET', key, 'content', content, 'type', kind, 'mandatory', mandatory,
  'size', int(#ARGV - 10), 'cursor', '0', 'chunks', '0', 'routed', '0', 'fanned', '0', 'whole', ARGV[8],
  'generation', generation, 'entry', generation .. ':' .. now_text)
if again then
  redis.call('HSET', key, 'before', before, 'again', again)
end
if named then
  redis.call('HSET', key, 'audience', '1', 'named', named, 'horizon', horizon)
end
redis.call('PERSIST', key)
if fact ~= '' then
  tell(fact)
end
append_facts()
return 1
