-- Which life this is, and how far its journal is.
-- ARGV: namespace.
-- Answers the epoch or '', the number of the last fact, the time in ms, when the oldest waiting fact was told (ms) or
-- '', and the epoch of the life that is being made ready or ''.

local first = redis.call('XRANGE', ns .. ':facts', '-', '+', 'COUNT', 1)[1]
return {
  redis.call('GET', ns .. ':epoch') or '', int(last_number()), int(now),
  first and string.match(first[1], '^(%d+)') or '', redis.call('GET', ns .. ':life:next') or '',
}
