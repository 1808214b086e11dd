-- Turns a chunk of recipients into notifications: inbox entries, flights, the index, and one fact for all of them.
-- People who are reached alike share a plan, and what becomes of it is worked out and told once.
-- ARGV: namespace, event, chunk, which entry of the event it is of, cid as JSON, critical, inbox prefix, cached,
--       inbox ttl_ms, keep_ms, for how many ms more what was given inline is kept, number of plans,
--       then for each plan: number of steps, for each step: number, channel, after_ms, reason or '', and as one text
--       who has it: for each notification its id and user, and on a line of their own the addresses of the plan's
--       steps but IN_APP's as JSON, each after a comma. (Redis and Lua take longer over many arguments than over one.)
-- Answers nil when the chunk was routed before, or is of another entry of the event, else {1 when a paused fan-out may
-- go on, channel with something ready…}.

if is_lost() then
  return refuse()
end
local event, chunk, entry, cid, critical = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'
local inbox = { prefix = ARGV[7], cached = ARGV[8] == '1', ttl = ARGV[9] }
local keep, longer = ARGV[10], tonumber(ARGV[11])
local chunk_key = ns .. ':chunk:' .. event .. ':' .. chunk
local state = redis.call('HMGET', event_key(event), 'again', 'entry')
if redis.call('EXISTS', chunk_key) == 0 or entry ~= (state[2] or '') then
  return nil
end
local withdrawn = is_cancelled(event)
-- Whether some of its notifications may have been withdrawn alone (withdraw.lua, stop.lua).
local partly = is_any_stopped() or redis.call('EXISTS', ns .. ':cancelled:' .. event .. ':partly') == 1
-- An event that was on its way when Redis was lost: what is known of its deliveries is in motion already, or done; and
-- where it is not known whether others were ('doubt:<ms>'), what could have started within so many ms of being routed
-- counts as begun by nobody knows whom, whatever was read or withdrawn since.
local again = state[1]
local doubt_ms = tonumber(string.match(again or '', '^doubt:(%d+)$'))

local function take_plan(position)
  local steps = {}
  for number = 1, tonumber(ARGV[position]) do
    local first = position + number * 4 - 3
    steps[number] = {
      number = tonumber(ARGV[first]), channel = ARGV[first + 1], after = tonumber(ARGV[first + 2]),
      reason = ARGV[first + 3],
    }
  end
  return steps, position + #steps * 4 + 1
end

local function may_have_begun(step)
  return doubt_ms and step.channel ~= 'IN_APP' and step.reason == '' and step.after <= doubt_ms
end

-- Where a step stands from the beginning: its status, and the reason where it has one. Of one that is known nothing is
-- told that would supersede what is.
local function begin_step(step, kind, is_known)
  if is_known then
    return step.after == 0 and 'QUEUED' or 'SCHEDULED'
  elseif step.reason ~= '' then
    return 'SUPPRESSED', step.reason
  elseif may_have_begun(step) then
    return step.after == 0 and 'QUEUED' or 'SCHEDULED'
  elseif kind == 'withdrawn' then
    return 'CANCELLED', 'cancelled'
  elseif step.channel == 'IN_APP' and step.after == 0 then
    return 'DELIVERED'
  elseif kind == 'read' then
    return 'CANCELLED', 'read'
  end
  return step.after == 0 and 'QUEUED' or 'SCHEDULED'
end

local function open_step(step, status)
  if may_have_begun(step) then
    return { number = step.number, channel = step.channel, status = 'G', attempt = 1, time = now, token = LOST }
  end
  return {
    number = step.number, channel = step.channel, status = status == 'QUEUED' and 'Q' or 'W', attempt = 1,
    time = now + step.after, token = '',
  }
end

-- What becomes of a plan, for all who share it and of whom the same is known: whether it is listed, its steps that are
-- open, those of them that are ready with their time and the end of their name as the index has them, when the next of
-- the others is due, and the flight of whoever has no other. It is told in `courses`, at `place`.
local courses = {}
local function begin_plan(steps, kind, known)
  local course, told = { place = int(#courses), listed = false, open = {}, ready = {} }, {}
  for _, step in ipairs(steps) do
    local is_known = string.find(known, ',' .. int(step.number) .. ',', 1, true) ~= nil
    local status, reason = begin_step(step, kind, is_known)
    if status == 'DELIVERED' then
      course.listed = true
    elseif is_known then
      -- It is in motion already, or done.
    elseif status == 'QUEUED' or status == 'SCHEDULED' then
      local open = open_step(step, status)
      table.insert(course.open, open)
      if open.status ~= 'W' then
        table.insert(course.ready, { channel = step.channel, time = int(open.time), name = ':' .. int(step.number) })
      end
    end
    table.insert(told, '[' .. int(step.number) .. ',"' .. step.channel .. '","' .. status .. '",'
      .. (reason and '"' .. reason .. '"' or 'null') .. ',' .. int(now + step.after) .. ']')
  end
  table.insert(courses, '[' .. (course.listed and now_text or '0') .. ',[' .. table.concat(told, ',') .. ']]')
  local flight, nearest = flight_text({ user = '', event = event, critical = critical, read = 0, steps = course.open })
  course.flight, course.due = flight, nearest and int(nearest)
  return course
end

local ids, users, addresses, plans = {}, {}, {}, {}
local function take_people(text, plan)
  local first = 1
  while first <= #text do
    local middle = string.find(text, '\n', first, true)
    local last = string.find(text, '\n', middle + 1, true)
    local number = #ids + 1
    ids[number], users[number] = string.sub(text, first, first + 35), string.sub(text, first + 36, middle - 1)
    addresses[number], plans[number] = string.sub(text, middle + 1, last - 1), plan
    first = last + 1
  end
end

local position = 13
for _ = 1, tonumber(ARGV[12]) do
  local steps
  steps, position = take_plan(position)
  take_people(ARGV[position], { steps = steps })
  position = position + 1
end

-- The steps of a notification that are known, as ",2,4,": IN_APP is none of them.
local function known_steps(steps, id)
  local known = ','
  for _, step in ipairs(steps) do
    local place = id .. ':' .. int(step.number)
    if step.channel ~= 'IN_APP' and redis.call('HEXISTS', ns .. ':known:' .. event, place) == 1 then
      known = known .. int(step.number) .. ','
    end
  end
  return known
end

local function course_of(plan, id, user, read)
  local alone = not withdrawn and partly and is_cancelled(event, id, user)
  local kind = (withdrawn or alone) and 'withdrawn' or read and 'read' or 'unread'
  local known = again and known_steps(plan.steps, id) or ''
  plan[kind .. known] = plan[kind .. known] or begin_plan(plan.steps, kind, known)
  return plan[kind .. known]
end

local ready, due, indexed = {}, {}, {}

local function rejoin_flight(id, user, course)
  local flight = load_flight(id)
    or { id = id, user = user, event = event, critical = critical, read = tonumber(read_mark(id) or 0), steps = {} }
  for _, step in ipairs(course.open) do
    table.insert(flight.steps, step)
    if step.status ~= 'W' then
      wait_in_channel(flight, step)
      ready[step.channel] = true
    end
  end
  if #flight.steps > 0 then
    save_flight(flight)
  end
end

-- What goes into the index is gathered for one command each.
local function begin_flight(id, user, course)
  local key, field = bucket(id)
  redis.call('HSET', key, field, user .. course.flight)
  for _, step in ipairs(course.ready) do
    local entries = indexed[step.channel] or {}
    indexed[step.channel], ready[step.channel] = entries, true
    entries[#entries + 1] = step.time
    entries[#entries + 1] = id .. step.name
  end
  if course.due then
    due[#due + 1] = course.due
    due[#due + 1] = 'n:' .. id
  end
end

local function add_all(key, entries)
  for first = 1, #entries, 1000 do
    redis.call('ZADD', key, unpack(entries, first, math.min(first + 999, #entries)))
  end
end

local marks = {}
for number, id in ipairs(ids) do
  marks[number] = ns .. ':read:' .. id
end
local read = #marks > 0 and redis.call('MGET', unpack(marks)) or {}
local routed = {}
for number, id in ipairs(ids) do
  local user = users[number]
  local course = course_of(plans[number], id, user, read[number])
  if course.listed then
    list_in_app(id, event, user, inbox)
  end
  if again then
    rejoin_flight(id, user, course)
  elseif #course.open > 0 then
    begin_flight(id, user, course)
  end
  routed[number] = '["' .. id .. '","' .. user .. '",' .. course.place .. addresses[number] .. ']'
end
add_all(ns .. ':due', due)
for channel, entries in pairs(indexed) do
  add_all(due_key(channel, critical), entries)
end

tell('{"f":"routed","e":"' .. event .. '","at":' .. now_text .. ',"cid":' .. cid .. ',"published":'
  .. (inbox.cached and 'true' or 'false') .. ',"plans":[' .. table.concat(courses, ',') .. '],"n":['
  .. table.concat(routed, ',') .. ']}')
-- What callers gave of people beside their ids is kept for the sends (profiles.py): longer than the event, which may
-- be kept for longer than others, for something of it was given up.
local given = {}
for _, person in ipairs(redis.call('LRANGE', chunk_key, 0, -1)) do
  local user = string.match(person, '^{"id":"([^"]*)",')
  if user then
    table.insert(given, user)
    table.insert(given, person)
  end
end
if #given > 0 then
  redis.call('HSET', ns .. ':contacts:' .. event, unpack(given))
  local event_ms = math.max(tonumber(keep), redis.call('PTTL', event_key(event)))
  redis.call('PEXPIRE', ns .. ':contacts:' .. event, int(event_ms + longer))
end
redis.call('DEL', chunk_key)
redis.call('ZREM', ns .. ':due', 'c:' .. event .. ':' .. chunk)
if redis.call('EXISTS', event_key(event)) == 1 then
  -- Of one that is forgotten nothing is made that nothing would remove.
  redis.call('HINCRBY', event_key(event), 'routed', 1)
  complete_if_done(event, keep)
end
append_facts()

-- A fan-out that paused is called by one, once no more chunks are open than it waits for.
local paused = redis.call('HGET', event_key(event), 'paused')
local answer = { paused and open_chunks(event) <= tonumber(paused) and '1' or '0' }
if answer[1] == '1' then
  redis.call('HDEL', event_key(event), 'paused')
end
for channel in pairs(ready) do
  table.insert(answer, channel)
end
return answer
