-- Marks notifications read and cancels what waits of them. What is being sent goes on; no later attempt follows.
-- ARGV: namespace, marker_ms, user, token, then for each: id, '1' when Postgres or the inbox says that it is the
--       user's.
-- Answers for each "state|read_ms": 'changed', 'known' (it was read before), 'foreign', or 'unseen' (no flight, and
-- not said to be the user's); and last how far the journal is. The same token gets the same answer.

free_first()
local marker, user, token = ARGV[2], ARGV[3], ARGV[4]
local answers, told = {}, {}

for position = 5, #ARGV, 2 do
  local id, owned = ARGV[position], ARGV[position + 1] == '1'
  local flight, earlier, reader, by = load_flight(id), read_mark(id)
  if not earlier and flight and flight.read > 0 then
    earlier = int(flight.read)
  end
  if flight and flight.user ~= user then
    table.insert(answers, 'foreign|0')
  elseif not flight and not owned and reader ~= user then
    table.insert(answers, 'unseen|0')
  else
    if flight and flight.read == 0 then
      flight.read = tonumber(earlier or now)
      cancel_waiting(flight, 'read')
    end
    if earlier then
      table.insert(answers, (by == token and 'changed|' or 'known|') .. earlier)
    else
      redis.call('SET', ns .. ':read:' .. id, int(now) .. ':' .. user .. '|' .. token, 'PX', marker)
      table.insert(told, '["' .. id .. '","' .. user .. '"]')
      table.insert(answers, 'changed|' .. int(now))
    end
  end
end
if #told > 0 then
  tell('{"f":"read","at":' .. int(now) .. ',"n":[' .. table.concat(told, ',') .. ']}')
end
append_facts()
return with_reached(answers)
