-- Starts what is due: steps move to their channel; events and chunks are named so that their actors are called again.
-- ARGV: namespace, most, guard_ms, inbox prefix, cached, inbox ttl_ms, then for each channel: its name, breaker or '',
--       limit of the provider's rate or ''.
-- Answers '1' when more may be due already, else '0'; the number of the last fact; and then whose actors are to be
-- called: 'e:<event>' and 'c:<event>:<chunk>' for members of `due`, and 's:<channel>' for each of the channels in which
-- something may start: new, a retry, or what a lease that ended left, unless its provider rests or has been given all that
-- its rate allows.

if is_lost() then
  return refuse()
end
local most, guard = tonumber(ARGV[2]), tonumber(ARGV[3])
local inbox = { prefix = ARGV[4], cached = ARGV[5] == '1', ttl = ARGV[6] }
local due = redis.call('ZRANGEBYSCORE', ns .. ':due', '-inf', int(now), 'LIMIT', 0, most)
local calls = { #due == most and '1' or '0', '' }

local function start(flight, step)
  local why = unwanted(flight)
  if why then
    tell_move(flight.id, step, step.attempt, 'CANCELLED', because(why))
    end_step(flight, step)
  elseif step.channel == 'IN_APP' then
    list_in_app(flight.id, flight.event, flight.user, inbox)
    tell('{"f":"listed","published":' .. (inbox.cached and 'true' or 'false') .. ',"e":"' .. flight.event
      .. '","n":[["' .. flight.id .. '","' .. flight.user .. '",' .. int(now) .. ']]}')
    tell_move(flight.id, step, step.attempt, 'DELIVERED')
    end_step(flight, step)
  else
    step.status, step.time = 'Q', now
    tell_move(flight.id, step, step.attempt, 'QUEUED')
    wait_in_channel(flight, step)
  end
end

for _, entry in ipairs(due) do
  if string.sub(entry, 1, 2) == 'n:' then
    local flight = load_flight(string.sub(entry, 3))
    if flight then
      local steps = {}
      for _, step in ipairs(flight.steps) do
        if step.status == 'W' and step.time <= now then
          table.insert(steps, step)
        end
      end
      for _, step in ipairs(steps) do
        start(flight, step)
      end
      save_flight(flight)
    else
      redis.call('ZREM', ns .. ':due', entry)
    end
  elseif redis.call('EXISTS', event_key(string.sub(entry, 3, 38))) == 0 then
    -- Nobody can do that work without the event's content, nor is anybody to be called for it for ever.
    redis.call('ZREM', ns .. ':due', entry)
    local kind = string.sub(entry, 1, 2) == 'c:' and ':chunk:' or ':recipients:'
    redis.call('DEL', ns .. kind .. string.sub(entry, 3))
  else
    redis.call('ZADD', ns .. ':due', int(now + guard), entry)
    table.insert(calls, entry)
  end
end
append_facts()
calls[2] = int(last_number())

local function has_ready(channel, critical)
  return #redis.call('ZRANGEBYSCORE', due_key(channel, critical), '-inf', int(now), 'LIMIT', 0, 1) > 0
end
for position = 7, #ARGV, 3 do
  local ready = has_ready(ARGV[position], true) or has_ready(ARGV[position], false)
  if ready and tokens(load_bucket(ARGV[position + 2]), let_through(load_breaker(ARGV[position + 1]), 1)) > 0 then
    table.insert(calls, 's:' .. ARGV[position])
  end
end
return calls
