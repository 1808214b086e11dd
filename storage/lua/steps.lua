-- How steps end, or go on, that nobody else brings to an end.

-- Why nothing more of a flight is to go out, or nil.
local function unwanted(flight)
  return flight.read > 0 and 'read' or is_cancelled(flight.event) and 'cancelled' or nil
end

-- Cancels what waits of a flight; what is being sent goes on. Answers how many deliveries that were.
local function cancel_waiting(flight, reason)
  local waiting = {}
  for _, step in ipairs(flight.steps) do
    if step.status ~= 'G' then
      table.insert(waiting, step)
    end
  end
  for _, step in ipairs(waiting) do
    tell_move(flight.id, step, step.attempt, 'CANCELLED', because(reason))
    end_step(flight, step)
  end
  save_flight(flight)
  return #waiting
end

-- A lease that ran out while the provider was called: nobody knows. Answers true where the step goes on as another
-- attempt; `step.lost` then says why nobody knows how the one before it ended.
local function end_lease(flight, step, attempts, resend)
  local reason = step.token == LOST and 'redis_lost' or 'lease_lost'
  tell_move(flight.id, step, step.attempt, 'UNCERTAIN', because(reason))
  if not resend or step.attempt % attempts == 0 then
    end_step(flight, step)
    return false
  end
  step.attempt, step.status, step.time, step.token, step.lost = step.attempt + 1, 'R', now, '', reason
  tell_move(flight.id, step, step.attempt, 'RETRYING', because_until(reason, now))
  return true
end
