-- Stops what was asked to be stopped: events by a mark each, and what a filter finds until each of that has its mark
-- (steps.lua `is_cancelled`).
-- ARGV: namespace, fact or ''; then the cancellation or '' where there is no filter, "<type>|<user>", first and last
--       event, what is told of each event behind its id, keep_ms, and '' or how many fields `stops` may have when another
--       filter comes; then for each event: id, keep_ms, fact.
-- Answers how many events were not withdrawn before; -1, with nothing done, where there is no room for the filter.

free_first()
local stops, asked, most = ns .. ':stops', ARGV[3], tonumber(ARGV[9])
local comes = asked ~= '' and redis.call('HEXISTS', stops, asked) == 0
if comes and most and redis.call('HLEN', stops) >= most then
  return -1
end
if ARGV[2] ~= '' then
  tell(ARGV[2])
end
if comes then
  local ranges = redis.call('HGET', stops, ARGV[4]) or ''
  redis.call('HSET', stops, ARGV[4], ranges .. asked .. ',' .. ARGV[5] .. ',' .. ARGV[6] .. ';', asked, ARGV[7],
    asked .. ':place', ARGV[4], asked .. ':keep', ARGV[8])
end
local fresh = 0
for position = 10, #ARGV, 3 do
  local mark = ns .. ':cancelled:' .. ARGV[position]
  fresh = fresh + 1 - redis.call('EXISTS', mark)
  redis.call('SET', mark, '1', 'PX', ARGV[position + 1])
  tell(ARGV[position + 2])
end
append_facts()
return fresh
