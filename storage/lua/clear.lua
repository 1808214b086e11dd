-- Removes what an older Redis has in motion, to be made anew from Postgres.
-- ARGV: namespace, keys…
-- Answers how many there were.

if is_lost() then
  return refuse()
end
return redis.call('UNLINK', unpack(ARGV, 2))
