-- Makes the journal's consumer group, from the beginning of the journal on. A script, for Redis at its memory limit
-- takes no XGROUP CREATE alone, and the drain is the way back from there.
-- ARGV: namespace, consumer group.

free_first()
local made = redis.pcall('XGROUP', 'CREATE', ns .. ':facts', ARGV[2], '0', 'MKSTREAM')
if made.err and not string.find(tostring(made.err), 'BUSYGROUP', 1, true) then
  return made
end
return 1
