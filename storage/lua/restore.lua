-- Puts back into motion what Postgres says is open and Redis does not have, or has at an earlier attempt: after a loss
-- (design §7), for a replay, or when reconciliation finds it missing. What is there stays as it is, but is entered in
-- the index anew, should it have fallen out of it.
-- ARGV: namespace, token, keep_ms, until_ms or 0, then for each notification "id|" and the flight as lib.lua writes it,
--       each step with the letter W, Q, R or G.
-- G, a provider call that was under way, is nobody's claim any more: record.lua takes its outcome from whoever knows
-- it, and its time, the lease's end, makes it uncertain (claim.lua).
-- Answers for each step 'restored', 'there', or 'cancelled' when it was read or withdrawn meanwhile; the same token
-- gets the same answer for `keep_ms`: what was restored may have been sent by the time a call comes once more. After
-- `until_ms` it answers once 'late' and does nothing: whoever called was held up for so long that it may not hold its
-- locks any more.

if is_lost() then
  return refuse()
end
local answer_key = ns .. ':restored:' .. ARGV[2]
local answers = redis.call('LRANGE', answer_key, 0, -1)
if #answers > 0 then
  return answers
end
if tonumber(ARGV[4]) > 0 and now > tonumber(ARGV[4]) then
  return { 'late' }
end

-- What became of a step while nothing was there to know it by (record.lua): true when it is over; where another attempt
-- follows, the step is made that one.
local function ended_meanwhile(flight, step)
  local told = is_rebuilding() and redis.call('HGET', ns .. ':life:ended', member(flight, step))
  local attempt, due = string.match(told or '', '^(%d+)|(%d*)$')
  if not attempt or tonumber(attempt) < step.attempt then
    return false
  elseif due ~= '' then
    step.attempt, step.status, step.time, step.token = attempt + 1, 'R', tonumber(due), ''
    return false
  end
  return true
end

local function put(flight, step)
  if ended_meanwhile(flight, step) then
    return 'there'
  end
  local known, position = find_step(flight, step.number)
  if known and known.attempt >= step.attempt then
    return 'there'
  end
  if known then
    table.remove(flight.steps, position)
  end
  local why = unwanted(flight)
  if why and step.status ~= 'G' then
    tell_move(flight.id, step, step.attempt, 'CANCELLED', because(why))
    return 'cancelled'
  end
  table.insert(flight.steps, step)
  return 'restored'
end

local position = 5
while position <= #ARGV do
  local id, text = string.match(ARGV[position], '^([^|]*)|(.*)$')
  local given = parse_flight(id, text)
  local flight = load_flight(id)
    or { id = id, user = given.user, event = given.event, critical = given.critical, read = 0, steps = {} }
  if flight.read == 0 then
    flight.read = tonumber(read_mark(id) or given.read)
  end
  for _, step in ipairs(given.steps) do
    step.token = step.status == 'G' and LOST or ''
    table.insert(answers, put(flight, step))
  end
  for _, step in ipairs(flight.steps) do
    if step.status ~= 'W' then
      wait_in_channel(flight, step)
    end
  end
  save_flight(flight)
  position = position + 1
end
append_facts()
for first = 1, #answers, 1000 do
  redis.call('RPUSH', answer_key, unpack(answers, first, math.min(first + 999, #answers)))
end
redis.call('PEXPIRE', answer_key, ARGV[3])
return answers
