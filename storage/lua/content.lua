-- Gives back what events say, where it was forgotten, so that deliveries of them can go out.
-- ARGV: namespace, then for each: event, content, type, mandatory, keep_ms.

free_first()
for position = 2, #ARGV, 5 do
  local key = event_key(ARGV[position])
  if redis.call('HEXISTS', key, 'content') == 0 then
    redis.call('HSET', key, 'content', ARGV[position + 1], 'type', ARGV[position + 2], 'mandatory', ARGV[position + 3])
    redis.call('PEXPIRE', key, ARGV[position + 4])
  end
end
return 1
