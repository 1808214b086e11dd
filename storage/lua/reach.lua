-- Who deliveries are for, as Redis knows it: what was given with their events, and whom it knows.
-- ARGV: namespace, then for each: event, user.
-- Answers for each three texts: '1' when the event's recipients are all known here, what was given inline, and the
-- contact; '' for what is not there.

local whole, answers = {}, {}
for position = 2, #ARGV, 2 do
  local event, user = ARGV[position], ARGV[position + 1]
  if whole[event] == nil then
    whole[event] = redis.call('HGET', event_key(event), 'whole') or ''
  end
  table.insert(answers, whole[event])
  table.insert(answers, redis.call('HGET', ns .. ':contacts:' .. event, user) or '')
  table.insert(answers, redis.call('HGET', ns .. ':profile:' .. user, 'contact') or '')
end
return answers
