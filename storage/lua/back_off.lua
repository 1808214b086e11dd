-- An event or a chunk whose work raised waits longer each time; after `most` failures it is given up. Those of an event are
-- counted page by page (fan_out.lua).
-- ARGV: namespace, entry of `due`, event, base_ms, most, 1 when this counts as a failure, error as JSON, keep_ms,
--       token of this call.
-- Answers 'again', 'failed', or 'gone' when somebody else has done that work.

free_first()
local entry, event, base, most = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local key = event_key(event)
if not redis.call('ZSCORE', ns .. ':due', entry) or redis.call('EXISTS', key) == 0 then
  redis.call('ZREM', ns .. ':due', entry)
  return 'gone'
end
if ARGV[6] ~= '1' then
  redis.call('ZADD', ns .. ':due', int(now + base), entry)
  return 'again'
end
if redis.call('HGET', key, 'failed_by:' .. entry) == ARGV[9] then
  return 'again'
end
redis.call('HSET', key, 'failed_by:' .. entry, ARGV[9])
local failures = redis.call('HINCRBY', key, 'failures:' .. entry, 1)
if failures < most then
  redis.call('ZADD', ns .. ':due', int(now + base * 2 ^ (failures - 1)), entry)
  return 'again'
end
redis.call('ZREM', ns .. ':due', entry)
tell_event(event, 'FAILED', nil, ARGV[7])
append_facts()
redis.call('PEXPIRE', key, ARGV[8])
redis.call('PEXPIRE', ns .. ':recipients:' .. event, ARGV[8])
-- What was given inline outlives the event, for without it nothing was given.
local contacts = ns .. ':contacts:' .. event
if redis.call('PTTL', contacts) < tonumber(ARGV[8]) then
  redis.call('PEXPIRE', contacts, ARGV[8])
end
if string.sub(entry, 1, 2) == 'c:' then
  redis.call('PEXPIRE', ns .. ':chunk:' .. string.sub(entry, 3), ARGV[8])
  -- It is open no longer, so that the event's other pages go on.
  redis.call('HINCRBY', key, 'given_up', 1)
else
  -- Nobody makes further pages of it; a replay does.
  redis.call('HSET', key, 'failed', '1')
end
return 'failed'
