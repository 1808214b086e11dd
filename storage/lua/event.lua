-- What is kept of an event: how far it is.

local function event_key(event)
  return ns .. ':event:' .. event
end

-- How many of an event's chunks are neither routed nor given up.
local function open_chunks(event)
  local state = redis.call('HMGET', event_key(event), 'chunks', 'routed', 'given_up')
  return tonumber(state[1] or 0) - tonumber(state[2] or 0) - tonumber(state[3] or 0)
end

-- Whether there are people of an event to be made chunks of. Of an audience it may be that nobody was named.
local function has_more_people(event)
  local state = redis.call('HMGET', event_key(event), 'fanned', 'audience')
  return state[1] == '0' and (state[2] or redis.call('EXISTS', ns .. ':recipients:' .. event) == 1)
end

-- Whether what is left to do of an event is gone: neither people to be made chunks of are there, nor an open chunk.
local function is_stranded(event)
  local state = redis.call('HMGET', event_key(event), 'fanned', 'chunks')
  if has_more_people(event) or state[1] == '1' and open_chunks(event) <= 0 then
    return false
  end
  -- Most of those that are open are the last ones.
  for number = tonumber(state[2] or 0) - 1, 0, -1 do
    if redis.call('EXISTS', ns .. ':chunk:' .. event .. ':' .. int(number)) == 1 then
      return false
    end
  end
  return true
end

local function tell_event(event, status, expected, failure)
  tell('{"f":"event","e":"' .. event .. '","at":' .. int(now) .. ',"status":"' .. status .. '","expected":'
    .. (expected or 'null') .. ',"error":' .. (failure or 'null') .. ',"generation":'
    .. (redis.call('HGET', event_key(event), 'generation') or '0') .. '}')
end

-- Says that the event is complete when every page is made and every chunk routed. Content stays for `keep` ms.
local function complete_if_done(event, keep)
  local state = redis.call('HMGET', event_key(event), 'fanned', 'chunks', 'routed', 'size', 'before')
  if state[1] == '1' and state[2] == state[3] then
    tell_event(event, 'COMPLETED', int(state[4] + (state[5] or 0)))
    redis.call('PEXPIRE', event_key(event), keep)
  end
end
