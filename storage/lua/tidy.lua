-- Looks at keys of events: is an event that is not fully fanned out, or a chunk of it, in `due` (I2), and is there a
-- key that nothing would remove? What fell out of `due` is entered again where that is asked for: Redis alone says so.
-- ARGV: namespace, '1' to mend, keep_ms, then for each: kind ('event', 'chunk' or 'recipients'), the rest of its name,
--       '1' when what nothing would remove may go.
-- Answers for each: 'ok'; 'absent' (nothing says how far it is); 'stalled' (not in `due`; entered when mending); 'lost'
-- (what is left to do of it is gone); 'left' (nothing would remove it) or 'removed'.

if is_lost() then
  return refuse()
end
local mend, keep = ARGV[2] == '1', ARGV[3]
local answers = {}

local function enter(entry)
  if mend then
    redis.call('ZADD', ns .. ':due', int(now), entry)
  end
  return 'stalled'
end

local function is_due(entry)
  return redis.call('ZSCORE', ns .. ':due', entry)
end

-- Its open chunks are looked for from the last one on, where most of them are.
local function look_at_chunks(event, chunks)
  local found, open, answer = 0, open_chunks(event), 'ok'
  for number = chunks - 1, 0, -1 do
    if found == open then
      break
    end
    local name = event .. ':' .. int(number)
    if redis.call('EXISTS', ns .. ':chunk:' .. name) == 1 then
      found = found + 1
      if not is_due('c:' .. name) then
        answer = enter('c:' .. name)
      end
    end
  end
  return answer
end

local function look_at_event(event, may_go)
  local key = event_key(event)
  local state = redis.call('HMGET', key, 'cursor', 'fanned', 'chunks', 'routed')
  if not state[1] then
    -- Its content alone may be there, for deliveries of it (content.lua), and goes by itself; anything else does not.
    if mend and redis.call('PTTL', key) == -1 then
      redis.call('PEXPIRE', key, keep)
    end
    return 'absent'
  elseif redis.call('PTTL', key) > 0 then
    return 'ok'
  elseif is_stranded(event) then
    return 'lost'
  elseif has_more_people(event) then
    return is_due('e:' .. event) and 'ok' or enter('e:' .. event)
  elseif state[2] == '0' or state[3] ~= state[4] then
    return look_at_chunks(event, tonumber(state[3]))
  end
  if may_go and mend then
    redis.call('PEXPIRE', key, keep)
    return 'removed'
  end
  return 'left'
end

-- A chunk or the recipients of an event that does not need them any more.
local function look_at_rest(kind, name, may_go)
  local key = ns .. ':' .. kind .. ':' .. name
  local event = string.match(name, '^[^:]*')
  local fanned = redis.call('HGET', event_key(event), 'fanned')
  local wanted = fanned and (kind == 'chunk' or fanned == '0')
  if wanted or redis.call('PTTL', key) ~= -1 then
    return 'ok'
  elseif may_go and mend then
    redis.call('DEL', key)
    redis.call('ZREM', ns .. ':due', (kind == 'chunk' and 'c:' or 'e:') .. name)
    return 'removed'
  end
  return 'left'
end

for position = 4, #ARGV, 3 do
  local kind, name, may_go = ARGV[position], ARGV[position + 1], ARGV[position + 2] == '1'
  table.insert(answers, kind == 'event' and look_at_event(name, may_go) or look_at_rest(kind, name, may_go))
end
return answers
