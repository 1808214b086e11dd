-- What steps come to: what holds them back, and how they end that nobody else brings to an end.

local types = {}
local function type_of(event)
  if not types[event] then
    types[event] = redis.call('HMGET', ns .. ':event:' .. event, 'type', 'mandatory')
  end
  return types[event][1] or '', types[event][2] == '1'
end

-- What was stopped by a filter holds until each event of it has a mark of its own (stop.lua): `stops` has by
-- "<type>|<user>", either of which may be empty, "<cancellation>,<first event>,<last event>;"…, and by cancellation the
-- rest of the fact that is told of each event. Where there is no such thing, to know that is all that this costs.
local has_stops
local function is_any_stopped()
  if has_stops == nil then
    has_stops = redis.call('EXISTS', ns .. ':stops') == 1
  end
  return has_stops
end

-- The cancellation by which all of an event is stopped, or with a user that person's notification of it; or nil.
local function stopped_by(event, user)
  local found = redis.call('HMGET', ns .. ':stops', '|' .. user, type_of(event) .. '|' .. user)
  for _, ranges in ipairs({ found[1] or '', found[2] or '' }) do
    for asked, first, last in string.gmatch(ranges, '([^,;]+),([^,;]+),([^,;]+);') do
      if first <= event and event <= last then
        return asked
      end
    end
  end
end

local unstopped = {}
local function stop_event(event)
  local asked = not unstopped[event] and stopped_by(event, '')
  if not asked then
    unstopped[event] = true
    return false
  end
  local told = redis.call('HMGET', ns .. ':stops', asked, asked .. ':keep')
  redis.call('SET', ns .. ':cancelled:' .. event, '1', 'PX', told[2])
  redis.call('HINCRBY', ns .. ':stops', asked .. ':events', 1)
  tell('{"f":"cancelled","e":"' .. event .. '",' .. told[1])
  return true
end

-- Whether an event was withdrawn, or this notification of it alone. Of what a filter stops, the event is marked here.
local function is_cancelled(event, id, user)
  if redis.call('EXISTS', ns .. ':cancelled:' .. event, ns .. ':cancelled:' .. (id or '')) > 0 then
    return true
  end
  return is_any_stopped() and (stop_event(event) or user ~= nil and stopped_by(event, user) ~= nil)
end

-- Why nothing more of a flight is to go out, or nil.
local function unwanted(flight)
  return flight.read > 0 and 'read' or is_cancelled(flight.event, flight.id, flight.user) and 'cancelled' or nil
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
