-- What steps come to: what holds them back, and how they end that nobody else brings to an end.

-- Why nothing more of a flight is to go out, or nil.
local function unwanted(flight)
  return flight.read > 0 and 'read' or is_cancelled(flight.event, flight.id) and 'cancelled' or nil
end

local types = {}
local function type_of(event)
  if not types[event] then
    types[event] = redis.call('HMGET', ns .. ':event:' .. event, 'type', 'mandatory')
  end
  return types[event][1] or '', types[event][2] == '1'
end

-- Off holds at the last moment too, whoever switched it off after the plan was made.
local function is_opted_out(flight, channel)
  local off = redis.call('HGET', ns .. ':optouts', flight.user)
  if not off then
    return false
  end
  local kind, mandatory = type_of(flight.event)
  if mandatory then
    return false
  end
  return string.find(off, ',' .. channel .. ',', 1, true) ~= nil
    or string.find(off, ',' .. channel .. '@' .. kind .. ',', 1, true) ~= nil
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
