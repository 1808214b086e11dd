-- Looks at flights as they are kept.
-- ARGV: namespace, ids of notifications…
-- Answers the text of each, '' where there is none.

local answers = {}
for position = 2, #ARGV do
  local key, field = bucket(ARGV[position])
  table.insert(answers, redis.call('HGET', key, field) or '')
end
return answers
