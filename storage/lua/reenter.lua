-- Enters an event that was given up once more, with those of its people who were not routed. Numbers of chunks go on,
-- so that a call that is still on its way to an old one meets no new one.
-- ARGV: namespace, event, content, type, mandatory, generation, how many chunks were routed when it was looked at or
--       '', how many people were routed before, audience as in accept.lua, then the recipients as JSON.
-- Answers 'entered', 'there' when it was entered so before, 'busy' while something of it is in motion or was a moment
-- ago, or 'cancelled'.

if is_lost() then
  return refuse()
end
local event, generation, seen = ARGV[2], tonumber(ARGV[6]), ARGV[7]
local key = event_key(event)
local state = redis.call('HMGET', key, 'cursor', 'generation', 'chunks', 'routed', 'again')
if state[1] and tonumber(state[2] or 0) >= generation then
  return 'there'
elseif is_cancelled(event) then
  append_facts()
  return 'cancelled'
elseif redis.call('ZSCORE', ns .. ':due', 'e:' .. event) or open_chunks(event) > 0 or (state[4] or '') ~= seen then
  return 'busy'
end
redis.call('ZADD', ns .. ':due', int(now), 'e:' .. event)
redis.call('DEL', ns .. ':recipients:' .. event)
for first = 10, #ARGV, 100 do
  redis.call('RPUSH', ns .. ':recipients:' .. event, unpack(ARGV, first, math.min(first + 99, #ARGV)))
end
-- What was given up is in the recipients again.
for _, field in ipairs(redis.call('HKEYS', key)) do
  local chunk = string.match(field, '^failures:c:(.+)$')
  if chunk then
    redis.call('DEL', ns .. ':chunk:' .. chunk)
  end
  if string.match(field, '^failures:') or string.match(field, '^failed_by:') then
    redis.call('HDEL', key, field)
  end
end
local chunks = state[3] or '0'
-- Whom it was in doubt about when it was given up it still is: what a loss of Redis hid does not come to light.
redis.call('HSET', key, 'content', ARGV[3], 'type', ARGV[4], 'mandatory', ARGV[5], 'size', int(#ARGV - 9),
  'cursor', '0', 'chunks', chunks, 'routed', chunks, 'given_up', '0', 'fanned', '0', 'whole', '0', 'before', ARGV[8],
  'generation', int(generation), 'entry', int(generation) .. ':' .. now_text,
  'again', state[5] or 'exact')
redis.call('HDEL', key, 'failed', 'paused')
local named, horizon = string.match(ARGV[9], '^(%d+)|(.*)$')
if named then
  redis.call('HSET', key, 'audience', '1', 'named', named, 'horizon', horizon)
end
redis.call('PERSIST', key)
return 'entered'
