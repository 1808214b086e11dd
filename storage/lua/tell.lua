-- Tells Postgres what has no other change in Redis: bad facts that are tried again, and testimony after a loss.
-- ARGV: namespace, facts as JSON…

free_first()
for position = 2, #ARGV do
  tell(ARGV[position])
end
append_facts()
return 1
