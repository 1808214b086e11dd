-- Makes the next page of an event's recipients a chunk to be routed.
-- ARGV: namespace, event, cursor, page, guard_ms, most open chunks, keep_ms.
-- Answers {state, cursor, chunk}: 'gone' (nothing left to do), 'moved' (another has taken this page), 'pause' (enough
-- chunks are open), 'more' or 'last'.

if is_lost() then
  return refuse()
end
local event, cursor, page, guard = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local most_open, keep = tonumber(ARGV[6]), ARGV[7]
local key, recipients = event_key(event), ns .. ':recipients:' .. event
local state = redis.call('HMGET', key, 'cursor', 'chunks', 'size', 'fanned')
if not state[1] or state[4] == '1' then
  redis.call('ZREM', ns .. ':due', 'e:' .. event)
  return { 'gone', '0', '0' }
end
local chunks, size = tonumber(state[2]), tonumber(state[3])
if tonumber(state[1]) ~= cursor then
  return { 'moved', state[1], '0' }
end
redis.call('ZADD', ns .. ':due', int(now + guard), 'e:' .. event)
if open_chunks(event) >= most_open then
  return { 'pause', state[1], '0' }
end
local users = redis.call('LRANGE', recipients, cursor, cursor + page - 1)
if cursor == 0 then
  tell_event(event, 'PROCESSING')
end
if #users > 0 then
  local chunk = event .. ':' .. int(chunks)
  redis.call('DEL', ns .. ':chunk:' .. chunk)
  redis.call('RPUSH', ns .. ':chunk:' .. chunk, unpack(users))
  redis.call('ZADD', ns .. ':due', int(now + guard), 'c:' .. chunk)
  redis.call('HSET', key, 'chunks', int(chunks + 1), 'cursor', int(cursor + #users))
end
local last = cursor + #users >= size or #users == 0
if last then
  redis.call('HSET', key, 'fanned', '1')
  redis.call('DEL', recipients)
  redis.call('ZREM', ns .. ':due', 'e:' .. event)
  complete_if_done(event, keep)
end
append_facts()
return { last and 'last' or 'more', int(cursor + #users), #users > 0 and int(chunks) or '-1' }
