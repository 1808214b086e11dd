-- Forgets entries of the journal. A transaction would do as well, but Redis at its memory limit takes none.
-- ARGV: namespace, consumer group, ids…

redis.call('XACK', ns .. ':facts', ARGV[2], unpack(ARGV, 3))
redis.call('XDEL', ns .. ':facts', unpack(ARGV, 3))
return 1
