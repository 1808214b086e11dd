-- What is kept of an event: how far it is.

local function event_key(event)
  return ns .. ':event:' .. event
end

-- How many of an event's chunks are neither routed nor given up.
local function open_chunks(event)
  local state = redis.call('HMGET', event_key(event), 'chunks', 'routed', 'given_up')
  return tonumber(state[1] or 0) - tonumber(state[2] or 0) - tonumber(state[3] or 0)
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
