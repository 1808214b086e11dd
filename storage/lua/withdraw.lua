-- Cancels what has not gone out. Without ids it marks the event, which every script that starts something honours;
-- with ids it cancels what waits of those notifications at once.
-- ARGV: namespace, event, keep_ms, fact or '', ids…
-- Answers how many deliveries were cancelled.

free_first()
local event, fact = ARGV[2], ARGV[4]
local cancelled = 0
redis.call('SET', ns .. ':cancelled:' .. event, '1', 'PX', ARGV[3])
if fact ~= '' then
  tell(fact)
end
for position = 5, #ARGV do
  local flight = load_flight(ARGV[position])
  if flight and flight.event == event then
    cancelled = cancelled + cancel_waiting(flight, 'cancelled')
  end
end
append_facts()
return cancelled
