-- What every script of Tocsin begins with: the clock, the names of keys, the form of a flight, and the one way to tell
-- Postgres something. Python puts this text and merge.lua before each script (storage/scripts.py).
--
-- ARGV[1] is the namespace. After it come the life of Redis that the caller works in and the number of the last fact
-- that it knows of (storage/life.py); both are taken off here, so scripts count their arguments without them. Redis's
-- own TIME is the clock. Numbers become text by `int` alone, for Lua would write a large one with an exponent.

local ns = ARGV[1]
local life = table.remove(ARGV, 2)
local reached = tonumber(table.remove(ARGV, 2))
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local function int(number)
  return string.format('%.0f', number)
end

local now_text = int(now)

local function due_key(channel, critical)
  return ns .. ':due:' .. channel .. (critical and ':critical' or '')
end

-- A flight lies in a bucket, a hash named by the first 18 characters of its id (millisecond and 12 bits): about 250
-- flights of a million-strong event share one, and small hashes cost a fraction of a key each.
local function bucket(id)
  return ns .. ':flight:' .. string.sub(id, 1, 18), string.sub(id, 20)
end

-- A flight is "user|event|critical|read_ms|step;step;…", a step "number,channel,status,attempt,time,token". Only
-- steps that are not final are kept; `status` is a letter of merge.lua, or A for claimed and not begun.
local function parse_flight(id, text)
  local user, event, critical, read, rest = string.match(text, '^([^|]*)|([^|]*)|([^|]*)|(%d+)|(.*)$')
  if not user then
    return nil -- not in our form: it counts as missing, so that it holds nothing up and reconciliation mends it
  end
  local flight = { id = id, user = user, event = event, critical = critical == '1', read = tonumber(read), steps = {} }
  for number, channel, status, attempt, time, token in
    string.gmatch(rest, '([^,;]*),([^,;]*),([^,;]*),([^,;]*),([^,;]*),([^,;]*)')
  do
    table.insert(flight.steps, {
      number = tonumber(number), channel = channel, status = status,
      attempt = tonumber(attempt), time = tonumber(time), token = token,
    })
  end
  return flight
end

local function load_flight(id)
  local text = redis.call('HGET', bucket(id))
  return text and parse_flight(id, text) or nil
end

local function member(flight, step)
  return flight.id .. ':' .. int(step.number)
end

-- The number of the last fact: the journal's ids are "<ms>-<number>", and the number grows by one with each.
local function last_number()
  local last = redis.call('GET', ns .. ':last_fact')
  return last and tonumber(string.match(last, '%-(%d+)$')) or 0
end

-- Whether this is not the Redis that the caller knows: emptied, or older than what the caller was told. One that is
-- older is marked so before new facts make up the difference. A caller who rebuilds works in the life "next:<epoch>",
-- which has not begun; one who gives no life does not ask.
local lost
local function is_lost()
  if lost == nil then
    local coming = string.match(life, '^next:(.+)$')
    if coming then
      lost = redis.call('GET', ns .. ':life:next') ~= coming
    elseif life == '' then
      lost = false
    else
      lost = redis.call('GET', ns .. ':epoch') ~= life
      if not lost and last_number() < reached then
        redis.call('DEL', ns .. ':epoch')
        lost = true
      end
    end
  end
  return lost
end

-- What a script answers that may not run in a Redis that the caller does not know.
local function refuse()
  return redis.error_reply('LOST this is not the Redis that the caller knows')
end

local function is_rebuilding()
  return string.sub(life, 1, 5) == 'next:'
end

-- Whether no life has begun: Redis was emptied or is an older one, and its rebuild is not done. `is_lost` comes first,
-- for it marks an older one.
local function is_between_lives()
  return life ~= '' and (is_lost() or true) and redis.call('EXISTS', ns .. ':epoch') == 0
end

-- Keeps that an attempt ended while its flight was lost, and when another follows or '': its rebuild may be under way,
-- and asks here (restore.lua).
local function end_between_lives(id, number, attempt, due)
  redis.call('HSET', ns .. ':life:ended', id .. ':' .. int(number), int(attempt) .. '|' .. due)
end

-- The token of a claim whose holder is not known any more (restore.lua).
local LOST = 'lost'

local function find_step(flight, number)
  for position, step in ipairs(flight.steps) do
    if step.number == number then
      return step, position
    end
  end
end

-- The flight as it is kept, and the time of its next step that waits.
local function flight_text(flight)
  local parts, nearest = {}, nil
  for _, step in ipairs(flight.steps) do
    table.insert(parts, table.concat({
      int(step.number), step.channel, step.status, int(step.attempt), int(step.time), step.token,
    }, ','))
    if step.status == 'W' and (not nearest or step.time < nearest) then
      nearest = step.time
    end
  end
  local head = { flight.user, flight.event, flight.critical and '1' or '0', int(flight.read), table.concat(parts, ';') }
  return table.concat(head, '|'), nearest
end

-- Stores the flight and enters it in `due` at its next step's time; one without steps is dropped.
local function save_flight(flight)
  local key, field = bucket(flight.id)
  if #flight.steps == 0 then
    redis.call('HDEL', key, field)
    redis.call('ZREM', ns .. ':due', 'n:' .. flight.id)
    return
  end
  local text, nearest = flight_text(flight)
  redis.call('HSET', key, field, text)
  if nearest then
    redis.call('ZADD', ns .. ':due', int(nearest), 'n:' .. flight.id)
  else
    redis.call('ZREM', ns .. ':due', 'n:' .. flight.id)
  end
end

-- Takes a step that became final out of its flight and out of the index.
local function end_step(flight, step)
  local _, position = find_step(flight, step.number)
  table.remove(flight.steps, position)
  redis.call('ZREM', due_key(step.channel, flight.critical), member(flight, step))
end

local function wait_in_channel(flight, step)
  redis.call('ZADD', due_key(step.channel, flight.critical), int(step.time), member(flight, step))
end

-- Redis at its memory limit refuses a script's commands, but not one that has removed something before: what records,
-- reads or hands back begins with this, for it must pass.
local function free_first()
  redis.call('DEL', ns .. ':nothing')
end

-- What this call has to tell Postgres, gathered and appended as one entry at its end.
local facts, moves = {}, {}

local function tell(fact)
  table.insert(facts, fact)
end

-- One change of one delivery; `detail`, and `word`, the provider's own, are JSON text.
local function tell_move(id, step, attempt, status, detail, word)
  table.insert(moves, '["' .. id .. '",' .. int(step.number) .. ',"' .. step.channel .. '",' .. int(attempt) .. ',"'
    .. status .. '",' .. (word or 'null') .. ',' .. int(now) .. ',' .. (detail or '{}') .. ']')
end

-- Appends an entry; its number is one more than the last one's, whatever the clock does and whoever else adds to the
-- journal. Answers its id.
local function add_entry(entry)
  local key, last = ns .. ':facts', redis.call('GET', ns .. ':last_fact')
  if not last then
    return redis.call('XADD', key, '*', 'd', entry)
  end
  local time, number = string.match(last, '^(%d+)%-(%d+)$')
  local behind = '-' .. int(number + 1)
  local added = redis.pcall('XADD', key, int(math.max(now, tonumber(time))) .. behind, 'd', entry)
  if type(added) ~= 'table' then
    return added
  end
  -- Memory is short, which is raised as Redis words it; or the journal goes on behind what somebody else added.
  local journal, top = redis.pcall('XINFO', 'STREAM', key), time
  for position = 1, #journal, 2 do
    if journal[position] == 'last-generated-id' then
      top = string.match(journal[position + 1], '^%d+')
    end
  end
  return redis.call('XADD', key, int(tonumber(top) + 1) .. behind, 'd', entry)
end

local function append_facts()
  if #moves > 0 then
    tell('{"f":"moved","d":[' .. table.concat(moves, ',') .. ']}')
  end
  if #facts > 0 then
    is_lost()
    local entry = '[' .. table.concat(facts, ',') .. ']'
    redis.call('SET', ns .. ':last_fact', add_entry(entry))
    redis.call('INCRBY', ns .. ':facts:bytes', int(#entry))
  end
end

-- An answer, and behind it how far the journal is: who heard of that knows an older Redis from this one (is_lost).
local function with_reached(answers)
  table.insert(answers, int(last_number()))
  return answers
end

-- When a notification was read, by whom, and by which call, for an hour: honoured by whatever makes or starts something
-- of it.
local function read_mark(id)
  local mark = redis.call('GET', ns .. ':read:' .. id)
  if mark then
    return string.match(mark, '^(%d+):([^|]*)|?(.*)$')
  end
end

local function because(reason)
  return '{"reason":"' .. reason .. '"}'
end

-- Why a delivery waits for another attempt, and until when.
local function because_until(reason, time)
  return '{"reason":"' .. reason .. '","due":' .. int(time) .. '}'
end

-- An inbox entry's exact bytes: the persister removes a stored one by writing them again (storage/inbox.py `entry`).
local entry_ends = {}
local function inbox_entry(id, event)
  if not entry_ends[event] then
    entry_ends[event] = '","event":"' .. event .. '","listedAt":' .. now_text .. ',"cachedAt":' .. now_text .. '}'
  end
  return '{"id":"' .. id .. entry_ends[event]
end

-- The lists' names are shared with others: one that is not a list is not ours, and stops nobody else's work. What is
-- not listed shows when Postgres has it.
local function on_list(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    -- Any other error is raised as Redis words it.
    return not string.find(tostring(answer.err), 'WRONGTYPE', 1, true) and redis.call(...) or nil
  end
  return answer
end

local function list_in_app(id, event, user, inbox)
  if inbox.cached then
    local key = inbox.prefix .. ':' .. user
    if on_list('LPUSH', key, inbox_entry(id, event)) then
      redis.call('PEXPIRE', key, inbox.ttl)
    end
    redis.call('PUBLISH', ns .. ':user:' .. user, now_text .. ':' .. id)
  end
end
