-- The contacts of people, as JSON; '' for who is not known here.
-- ARGV: namespace, users…

local answers = {}
for position = 2, #ARGV do
  answers[position - 1] = redis.call('HGET', ns .. ':profile:' .. ARGV[position], 'contact') or ''
end
return answers
