-- Looks at what Postgres says is open: is there a flight with that step, and does the index know of all that it has?
-- What fell out of the index (I1) is entered again where that is asked for: the flight itself says when it is due.
-- ARGV: namespace, '1' to mend, then for each notification: id, its steps as "2,3" or ''.
-- Answers for what is wrong "missing|id|step|" and "unindexed|id|step|channel"; and "ended|id|step|channel" for a lease
-- that ran out while the provider was called, and that nobody has ended (end_leases.lua).

if is_lost() then
  return refuse()
end
local mend = ARGV[2] == '1'
local answers = {}

local function find(what, id, number, channel)
  table.insert(answers, table.concat({ what, id, number, channel }, '|'))
end

local function look_in_index(flight)
  local out = {}
  local due = redis.call('ZSCORE', ns .. ':due', 'n:' .. flight.id)
  for _, step in ipairs(flight.steps) do
    local entered = due
    if step.status ~= 'W' then
      entered = redis.call('ZSCORE', due_key(step.channel, flight.critical), member(flight, step))
    end
    if not entered then
      table.insert(out, step)
      find('unindexed', flight.id, int(step.number), step.channel)
    end
  end
  if mend and #out > 0 then
    for _, step in ipairs(out) do
      if step.status ~= 'W' then
        wait_in_channel(flight, step)
      end
    end
    save_flight(flight)
  end
end

for position = 3, #ARGV, 2 do
  local id = ARGV[position]
  local flight = load_flight(id)
  for number in string.gmatch(ARGV[position + 1], '%d+') do
    local step = flight and find_step(flight, tonumber(number))
    if not step then
      find('missing', id, number, '')
    elseif step.status == 'G' and step.time <= now then
      find('ended', id, number, step.channel)
    end
  end
  if flight then
    look_in_index(flight)
  end
end
return answers
