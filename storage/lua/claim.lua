-- Claims deliveries of a channel that may start, CRITICAL first, each under a lease. A claim has not begun: until
-- begin.lua says so no provider was called, and its lease's end frees it without a trace.
-- ARGV: namespace, channel, token, most, lease_ms, attempts allowed, 1 when an unknown outcome is sent again,
--       breaker or '', limit of the provider's rate or '' (rate.lua).
-- Answers a list of "id|step|attempt|user|event|why nobody knows how the attempt before it ended, or nothing"; the same
-- token gets the same answer.

if is_lost() then
  return refuse()
end
local channel, token, most, lease = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local attempts, resend = tonumber(ARGV[6]), ARGV[7] == '1'
local answer_key = ns .. ':claim:' .. token
local known = redis.call('LRANGE', answer_key, 0, -1)
if #known > 0 then
  return known
end
local breaker = load_breaker(ARGV[8])
local bucket = load_bucket(ARGV[9])
most = tokens(bucket, let_through(breaker, most))

local function hindrance(flight)
  local why = unwanted(flight)
  if why then
    return 'CANCELLED', why
  elseif is_opted_out(flight, channel) then
    return 'SUPPRESSED', 'opted_out'
  end
end

local claimed = {}
-- `sparing`: a provider's trial is no delivery's last attempt, as long as another waits. Answers true when it was
-- spared.
local function try(entry, critical, sparing)
  local id, number = string.match(entry, '^(.*):(%d+)$')
  local flight = load_flight(id)
  local step = flight and find_step(flight, tonumber(number))
  if not step or step.status == 'W' then
    redis.call('ZREM', due_key(channel, critical), entry)
    return
  end
  if step.time > now or step.channel ~= channel or flight.critical ~= critical then
    -- It stands where it does not belong, and may be claimed: the flight says when and where it starts.
    redis.call('ZREM', due_key(channel, critical), entry)
    wait_in_channel(flight, step)
    return
  end
  if sparing and step.status ~= 'G' and step.attempt % attempts == 0 then
    return true
  end
  local alive = step.status ~= 'G' or end_lease(flight, step, attempts, resend)
  if alive then
    local status, reason = hindrance(flight)
    if status then
      tell_move(flight.id, step, step.attempt, status, because(reason))
      end_step(flight, step)
    else
      step.status, step.time, step.token = 'A', now + lease, token
      wait_in_channel(flight, step)
      begin_trial(breaker, token, id, number, lease)
      table.insert(claimed, table.concat({ id, number, int(step.attempt), flight.user, flight.event,
        step.lost or '' }, '|'))
    end
  end
  save_flight(flight)
end

-- What may not start leaves the index, so that what lies behind it comes up in the same call.
local function look(looks, sparing)
  for _, critical in ipairs({ true, false }) do
    local key, spared = due_key(channel, critical), 0
    repeat
      local entries = {}
      local wanted = math.min(most - #claimed, looks)
      if wanted > 0 then
        entries = redis.call('ZRANGEBYSCORE', key, '-inf', int(now), 'LIMIT', spared, wanted)
      end
      for _, entry in ipairs(entries) do
        spared = spared + (try(entry, critical, sparing) and 1 or 0)
      end
      looks = looks - #entries
    until #entries == 0
  end
end

if breaker.state == 'open' then
  look(50, true)
end
look(100, false)
if #claimed > 0 then
  take_tokens(bucket, #claimed, token, lease)
  redis.call('RPUSH', answer_key, unpack(claimed))
  redis.call('PEXPIRE', answer_key, ARGV[5])
end
append_facts()
return claimed
