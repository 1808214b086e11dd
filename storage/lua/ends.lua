-- Where the journal begins and ends. Its entries, which may be large, stay where they are.
-- Answers the first and the last id, or nothing when the journal is empty.

local first = redis.call('XRANGE', ns .. ':facts', '-', '+', 'COUNT', 1)[1]
if not first then
  return {}
end
return { first[1], redis.call('XREVRANGE', ns .. ':facts', '+', '-', 'COUNT', 1)[1][1] }
