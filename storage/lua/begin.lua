-- Says that the provider calls of a claim begin now. What was read, withdrawn, switched off or taken over since is not
-- to be sent.
-- ARGV: namespace, token, lease_ms, attribution as JSON, then for each: id, step, attempt.
-- Answers '1' or '0' for each, and how far the journal is. The lease counts from here; a call that is sent again after
-- its end gets no other one.

if is_lost() then
  return refuse()
end
local token, lease, detail = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local answers = {}
for position = 5, #ARGV, 3 do
  local id, number, attempt = ARGV[position], tonumber(ARGV[position + 1]), tonumber(ARGV[position + 2])
  local flight = load_flight(id)
  local step = flight and find_step(flight, number)
  local mine = step and step.token == token and step.attempt == attempt
  local stands = mine and step.time > now
  if stands and step.status == 'A' and not unwanted(flight) and not is_opted_out(flight, step.channel) then
    step.status, step.time = 'G', now + lease
    tell_move(id, step, attempt, 'SENDING', detail)
    wait_in_channel(flight, step)
    save_flight(flight)
  end
  table.insert(answers, stands and step.status == 'G' and '1' or '0')
end
append_facts()
return with_reached(answers)
