-- Keeps people's contacts unless newer ones are kept, and mirrors what they switched off.
-- ARGV: namespace, '1' to keep only those that somebody has asked for already, then for each: user, version, contact as
--       JSON, ttl_ms, opt-outs as ",SMS,EMAIL@a.b," or ''.

for position = 3, #ARGV, 5 do
  local user, version, off = ARGV[position], tonumber(ARGV[position + 1]), ARGV[position + 4]
  local key = ns .. ':profile:' .. user
  local known = tonumber(redis.call('HGET', key, 'version') or -1)
  if version >= known then
    if known >= 0 or ARGV[2] ~= '1' then
      redis.call('HSET', key, 'version', int(version), 'contact', ARGV[position + 2])
      redis.call('PEXPIRE', key, ARGV[position + 3])
    end
    if off == '' then
      redis.call('HDEL', ns .. ':optouts', user)
    else
      redis.call('HSET', ns .. ':optouts', user, off)
    end
  end
end
return 1
