-- Takes out of Redis what Postgres does not know, or has as final; only what is still exactly as it was looked at.
-- ARGV: namespace, then for each: kind, name, and what was seen of it:
--   'flight', notification, the flight's text, and the steps to take out as "2,3";
--   'entry', a key of the index, a member, '': one that stands for no step that waits there.
-- Answers '1' or '0' for each.

if is_lost() then
  return refuse()
end
free_first()
local answers = {}

local function drop_steps(id, seen, numbers)
  local key, field = bucket(id)
  if redis.call('HGET', key, field) ~= seen then
    return '0'
  end
  local flight = load_flight(id)
  for number in string.gmatch(numbers, '%d+') do
    local step = find_step(flight, tonumber(number))
    if step then
      end_step(flight, step)
    end
  end
  save_flight(flight)
  return '1'
end

local function stands_for_nothing(key, entry)
  if key == ns .. ':due' then
    local kind, name = string.sub(entry, 1, 1), string.sub(entry, 3)
    if kind == 'n' then
      return not load_flight(name)
    elseif kind == 'e' then
      return redis.call('EXISTS', event_key(name)) == 0
    end
    return redis.call('EXISTS', ns .. ':chunk:' .. name) == 0
  end
  local id, number = string.match(entry, '^(.*):(%d+)$')
  local flight = id and load_flight(id)
  local step = flight and find_step(flight, tonumber(number))
  return not step or step.status == 'W' or key ~= due_key(step.channel, flight.critical)
end

for position = 2, #ARGV, 4 do
  local name, seen, more = ARGV[position + 1], ARGV[position + 2], ARGV[position + 3]
  if ARGV[position] == 'flight' then
    table.insert(answers, drop_steps(name, seen, more))
  elseif stands_for_nothing(name, seen) then
    table.insert(answers, int(redis.call('ZREM', name, seen)))
  else
    table.insert(answers, '0')
  end
end
return answers
