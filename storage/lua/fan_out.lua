-- Makes the next people of an event a chunk to be routed: of those that were named, or of a page of its audience.
-- The cursor is how many of the named are done; behind them, where the event has an audience, "@" and the last user id.
-- ARGV: namespace, event, cursor, page, guard_ms, most open chunks, keep_ms; and for people of the audience: which entry
--       of the event they were found for, the cursor behind them, 1 when nobody comes after them, 1 when all of them
--       lie beyond the horizon, and the people. Without them a cursor in the audience only asks for room for a page.
-- Up to the horizon people may have been made chunks of before a loss or a replay; beyond it nobody was.
-- Answers {state, cursor, chunk, how many processes run actors}: 'gone' (nothing left to do, or not for who found people
-- for an earlier entry), 'moved' (another has taken this page), 'pause' (enough chunks are open; whoever routes them
-- calls once), 'more' or 'last'.

if is_lost() then
  return refuse()
end
local event, cursor, page, guard = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local most_open, keep = tonumber(ARGV[6]), ARGV[7]
local key, recipients = event_key(event), ns .. ':recipients:' .. event
local state = redis.call('HMGET', key, 'cursor', 'chunks', 'size', 'fanned', 'audience', 'again', 'entry',
  'failed')
if not state[1] or state[4] == '1' or state[8] then
  redis.call('ZREM', ns .. ':due', 'e:' .. event)
  return { 'gone', '0', '0', '0' }
end
local chunks, size, audience = tonumber(state[2]), tonumber(state[3]), state[5] == '1'
local named, asks = string.sub(cursor, 1, 1) ~= '@', #ARGV == 7
if not named and not asks and ARGV[8] ~= (state[7] or '') then
  return { 'gone', '0', '0', '0' }
end
if state[1] ~= cursor then
  return { 'moved', state[1], '0', '0' }
end
redis.call('ZADD', ns .. ':due', int(now + guard), 'e:' .. event)

-- Until no more than `left` chunks are open.
local function pause(left)
  redis.call('HSET', key, 'paused', int(left))
  return { 'pause', state[1], '0', '0' }
end

local open, half = open_chunks(event), math.floor(most_open / 2)
if open >= most_open or (asks and not named and open > half) then
  return pause(half)
elseif asks and not named then
  return { 'more', state[1], '-1', '0' }
end
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
  users, following, last = { unpack(ARGV, 12) }, ARGV[9], ARGV[10] == '1'
  if ARGV[11] == '1' and state[6] then
    -- What was in doubt ends here; but the chunks before are routed first, for they are still in it.
    if open > 0 then
      return pause(0)
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
-- A page that was made ends a pause, and the failures of those who tried it before.
redis.call('HDEL', key, 'paused', 'failures:e:' .. event)
if last then
  redis.call('HSET', key, 'fanned', '1')
  redis.call('DEL', recipients)
  redis.call('ZREM', ns .. ':due', 'e:' .. event)
  complete_if_done(event, keep)
end
append_facts()
local processes = int(redis.call('ZCOUNT', ns .. ':processes', tonumber(clock[1]), '+inf'))
return { last and 'last' or 'more', following, #users > 0 and int(chunks) or '-1', processes }
