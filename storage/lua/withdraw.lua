-- Cancels what has not gone out. Without ids it marks the event, which every script that starts something honours;
-- with ids it cancels what waits of those notifications at once.
-- ARGV: namespace, event, keep_ms, 'event' or 'alone': whether all of it is withdrawn or these notifications alone,
--       ids…
-- Answers how many deliveries were cancelled.

free_first()
local event, keep, alone = ARGV[2], ARGV[3], ARGV[4] == 'alone'
local cancelled = 0
if not alone then
  -- A mark that is there is kept for as long as the event needs it (stop.lua).
  redis.call('SET', ns .. ':cancelled:' .. event, '1', 'PX', keep, 'NX')
end

-- One that is not routed yet, or of which something is under way that may fail, is marked itself.
local function mark(id)
  redis.call('SET', ns .. ':cancelled:' .. id, '1', 'PX', keep)
  redis.call('SET', ns .. ':cancelled:' .. event .. ':partly', '1', 'PX', keep)
end

local function is_begun(flight)
  for _, step in ipairs(flight.steps) do
    if step.status == 'G' then
      return true
    end
  end
  return false
end

for position = 5, #ARGV do
  local flight = load_flight(ARGV[position])
  if flight and flight.event == event then
    if alone and is_begun(flight) then
      mark(flight.id)
    end
    cancelled = cancelled + cancel_waiting(flight, 'cancelled')
  elseif alone then
    mark(ARGV[position])
  end
end
append_facts()
return cancelled
