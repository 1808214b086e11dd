-- Ends leases that ran out while the provider was called, where nobody claims what they left: while a provider rests,
-- or where no process works on the channel. claim.lua does the same for what it claims.
-- ARGV: namespace, attempts allowed, 1 when an unknown outcome is sent again, then for each: id, step.
-- Answers those that another attempt follows, as claim.lua does.

if is_lost() then
  return refuse()
end
local attempts, resend = tonumber(ARGV[2]), ARGV[3] == '1'
local following = {}
for position = 4, #ARGV, 2 do
  local flight = load_flight(ARGV[position])
  local step = flight and find_step(flight, tonumber(ARGV[position + 1]))
  if step and step.status == 'G' and step.time <= now then
    if end_lease(flight, step, attempts, resend) then
      table.insert(following, table.concat({ flight.id, int(step.number), int(step.attempt), flight.user,
        flight.event, step.lost }, '|'))
      local why = unwanted(flight)
      if why then
        tell_move(flight.id, step, step.attempt, 'CANCELLED', because(why))
        end_step(flight, step)
      else
        wait_in_channel(flight, step)
      end
    end
    save_flight(flight)
  end
end
append_facts()
return following
