-- What is kept of an event: how far it is.

local function event_key(event)
  return ns .. ':event:' .. event
end

-- How many of an event's chunks are neither routed nor given up.
local function open_chunks(event)
  local state = redis.call('HMGET', event_key(event), 'chunks', 'routed', 'given_up')
  return tonumber(state[1] or 0) - tonumber(state[2] or 0) - tonumber(state[3] or 0)
end

-- `matched` is how many people were found until now, not counting those of before a loss or a replay.
local function tell_event(event, status, expected, failure, matched)
  local state = redis.call('HMGET', event_key(event), 'generation', 'before')
  tell('{"f":"event","e":"' .. event .. '","at":' .. int(now) .. ',"status":"' .. status .. '","expected":'
    .. (expected or 'null') .. ',"error":' .. (failure or 'null') .. ',"generation":' .. (state[1] or '0')
    .. (matched and ',"matched":' .. int(matched + (state[2] or 0)) or '') .. '}')
end

-- Says that the event is complete when every page is made and every chunk routed. Content stays for `keep` ms.
local function complete_if_done(event, keep)
  local state = redis.call('HMGET', event_key(event), 'fanned', 'chunks', 'routed', 'size', 'before')
  if state[1] == '1' and state[2] == state[3] then
    tell_event(event, 'COMPLETED', int(state[4] + (state[5] or 0)))
    redis.call('PEXPIRE', event_key(event), keep)
  end
end
