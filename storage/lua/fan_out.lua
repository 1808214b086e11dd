-- Makes the next people of an event a chunk to be routed: of those that were named, or of a page of its audience.
-- The cursor is how many of the named are done; behind them, where the event has an audience, "@" and the last user id.
-- ARGV: namespace, event, cursor, page, guard_ms, most open chunks, keep_ms; and for a page of the audience: the cursor
--       behind these people, 1 when nobody comes after them, 1 when all of them lie beyond the horizon, and the people.
-- Up to the horizon people may have been made chunks of before a loss or a replay; beyond it nobody was.
-- Answers {state, cursor, chunk}: 'gone' (nothing left to do), 'moved' (another has taken this page), 'pause' (enough
-- chunks are open), 'more' or 'last'.

if is_lost() then
  return refuse()
end
local event, cursor, page, guard = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local most_open, keep = tonumber(ARGV[6]), ARGV[7]
local key, recipients = event_key(event), ns .. ':recipients:' .. event
local state = redis.call('HMGET', key, 'cursor', 'chunks', 'size', 'fanned', 'audience', 'again')
if not state[1] or state[4] == '1' then
  redis.call('ZREM', ns .. ':due', 'e:' .. event)
  return { 'gone', '0', '0' }
end
local chunks, size, audience = tonumber(state[2]), tonumber(state[3]), state[5] == '1'
if state[1] ~= cursor then
  return { 'moved', state[1], '0' }
end
redis.call('ZADD', ns .. ':due', int(now + guard), 'e:' .. event)
if open_chunks(event) >= most_open then
  return { 'pause', state[1], '0' }
end
local named = string.sub(cursor, 1, 1) ~= '@'
local users, following, last
if named then
  local first = tonumber(cursor)
  users = redis.call('LRANGE', recipients, first, first + page - 1)
  following = first + #users
  last = following >= size or #users == 0
  if last and audience then
    following, last = '@', false
  else
    following = int(following)
  end
else
  users, following, last = { unpack(ARGV, 11) }, ARGV[8], ARGV[9] == '1'
  if ARGV[10] == '1' and state[6] then
    -- What was in doubt ends here; but the chunks before are routed first, for they are still in it.
    if open_chunks(event) > 0 then
      return { 'pause', state[1], '0' }
    end
    redis.call('HDEL', key, 'again')
  end
  size = size + #users
end
if cursor == '0' then
  tell_event(event, 'PROCESSING')
end
if #users > 0 then
  local chunk = event .. ':' .. int(chunks)
  redis.call('DEL', ns .. ':chunk:' .. chunk)
  redis.call('RPUSH', ns .. ':chunk:' .. chunk, unpack(users))
  redis.call('ZADD', ns .. ':due', int(now + guard), 'c:' .. chunk)
end
redis.call('HSET', key, 'chunks', int(#users > 0 and chunks + 1 or chunks), 'cursor', following, 'size', int(size))
if last then
  redis.call('HSET', key, 'fanned', '1')
  redis.call('DEL', recipients)
  redis.call('ZREM', ns .. ':due', 'e:' .. event)
  complete_if_done(event, keep)
end
append_facts()
return { last and 'last' or 'more', following, #users > 0 and int(chunks) or '-1' }
