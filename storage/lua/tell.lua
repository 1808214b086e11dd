-- Tells Postgres what has no other change in Redis, such as a receipt.
-- ARGV: namespace, facts as JSON…

free_first()
for position = 2, #ARGV do
  tell(ARGV[position])
end
append_facts()
return 1
