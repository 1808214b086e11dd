-- Removes inbox entries that Postgres has stored, by their exact bytes. What is not a list is somebody else's.
-- ARGV: namespace, then pairs of list and entry.

for position = 2, #ARGV, 2 do
  on_list('LREM', ARGV[position], 1, ARGV[position + 1])
end
return 1
