-- Turns a chunk of recipients into notifications: inbox entries, flights, the index, and one fact for all of them.
-- ARGV: namespace, event, chunk, cid as JSON, critical, inbox prefix, cached, inbox ttl_ms, keep_ms,
--       then for each notification: id, user, number of steps, and for each step: number, channel, after_ms,
--       reason or '', address as JSON.
-- Answers nil when the chunk was routed before, else {1 when a paused fan-out may go on, channel with something
-- ready…}.

if is_lost() then
  return refuse()
end
local event, chunk, cid, critical = ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local inbox = { prefix = ARGV[6], cached = ARGV[7] == '1', ttl = ARGV[8] }
local keep = ARGV[9]
local chunk_key = ns .. ':chunk:' .. event .. ':' .. chunk
if redis.call('EXISTS', chunk_key) == 0 then
  return nil
end
local withdrawn = is_cancelled(event)
-- An event that was on its way when Redis was lost: what is known of its deliveries is in motion already, or done; and
-- where it is not known whether others were ('doubt'), what would start now counts as begun by nobody knows whom.
local again = redis.call('HGET', event_key(event), 'again')
local ready, routed = {}, {}

-- Where a step of this notification stands from the beginning: its status, and the reason where it has one.
local function begin_step(step, reason, read)
  if reason ~= '' then
    return 'SUPPRESSED', reason
  elseif withdrawn then
    return 'CANCELLED', 'cancelled'
  elseif step.channel == 'IN_APP' and step.after == 0 then
    return 'DELIVERED'
  elseif read then
    return 'CANCELLED', 'read'
  end
  return step.after == 0 and 'QUEUED' or 'SCHEDULED'
end

local function is_known(id, step)
  return redis.call('HEXISTS', ns .. ':known:' .. event, id .. ':' .. int(step.number)) == 1
end

local position = 10
while position <= #ARGV do
  local id, user, count = ARGV[position], ARGV[position + 1], tonumber(ARGV[position + 2])
  position = position + 3
  local read = read_mark(id)
  local flight = again and load_flight(id)
    or { id = id, user = user, event = event, critical = critical, read = tonumber(read or 0), steps = {} }
  local deliveries, listed = {}, '0'
  for _ = 1, count do
    local number, channel, after = tonumber(ARGV[position]), ARGV[position + 1], tonumber(ARGV[position + 2])
    local step = { number = number, channel = channel, after = after }
    local status, reason = begin_step(step, ARGV[position + 3], read)
    local time = now + step.after
    if status == 'DELIVERED' then
      listed = int(now)
      list_in_app(id, event, user, inbox)
    elseif (status == 'QUEUED' or status == 'SCHEDULED') and not (again and is_known(id, step)) then
      step.status, step.attempt, step.time, step.token = status == 'QUEUED' and 'Q' or 'W', 1, time, ''
      if again == 'doubt' and status == 'QUEUED' then
        step.status, step.token = 'G', LOST
      end
      table.insert(flight.steps, step)
      if status == 'QUEUED' then
        wait_in_channel(flight, step)
        ready[step.channel] = true
      end
    end
    table.insert(deliveries, '[' .. int(step.number) .. ',"' .. step.channel .. '","' .. status .. '",'
      .. (reason and '"' .. reason .. '"' or 'null') .. ',' .. ARGV[position + 4] .. ',' .. int(time) .. ']')
    position = position + 5
  end
  if #flight.steps > 0 then
    save_flight(flight)
  end
  table.insert(routed, '["' .. id .. '","' .. user .. '",' .. listed .. ',[' .. table.concat(deliveries, ',') .. ']]')
end

tell('{"f":"routed","e":"' .. event .. '","at":' .. int(now) .. ',"cid":' .. cid .. ',"published":'
  .. (inbox.cached and 'true' or 'false') .. ',"n":[' .. table.concat(routed, ',') .. ']}')
redis.call('DEL', chunk_key)
redis.call('ZREM', ns .. ':due', 'c:' .. event .. ':' .. chunk)
if redis.call('EXISTS', event_key(event)) == 1 then
  -- Of one that is forgotten nothing is made that nothing would remove.
  redis.call('HINCRBY', event_key(event), 'routed', 1)
  complete_if_done(event, keep)
end
append_facts()

-- A fan-out that paused is called once when half of the open chunks are routed, and once when all are.
local fanned, open = redis.call('HGET', event_key(event), 'fanned'), open_chunks(event)
local answer = { fanned == '0' and (open == 10 or open == 0) and '1' or '0' }
for channel in pairs(ready) do
  table.insert(answer, channel)
end
return answer
