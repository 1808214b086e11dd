-- The circuit breakers: a provider that is down rests, and uses up no attempt of what waits behind it (docs/adr/0006).
--
-- All of them are the hash `breakers`, by "channel:provider": "state|failures|level|until_ms|room|asked_ms". One that
-- is closed and has nothing against it is not there.
--   closed   calls go out; `failures` in a row, for which the provider `asked` to be left alone
--   open     no call before `until`; from then on one trial at a time. `level` counts the rests since it was closed
--   growing  a trial succeeded: `room` calls at once, one more with each success, until it counts as closed; a failure
--            opens it again. Without traffic it counts as closed at `until`
-- A call that is let through while it is not closed is a trial: it stands in `trials:<channel>:<provider>` until its
-- outcome is recorded or it is handed back, or at most until its lease ends, so that a killed process holds up nobody.

local function load_breaker(name)
  local text = name ~= '' and redis.call('HGET', ns .. ':breakers', name)
  local breaker = { name = name, state = 'closed', failures = 0, level = 0, ends = 0, room = 0, asked = 0 }
  if text then
    local state, failures, level, ends, room, asked =
      string.match(text, '^(%a+)|(%d+)|(%d+)|(%d+)|(%d+)|(%d+)$')
    if state ~= 'growing' or tonumber(ends) > now then
      breaker.state, breaker.failures, breaker.level = state, tonumber(failures), tonumber(level)
      breaker.ends, breaker.room, breaker.asked = tonumber(ends), tonumber(room), tonumber(asked)
    end
  end
  return breaker
end

local function save_breaker(breaker)
  if breaker.state == 'closed' and breaker.failures == 0 then
    redis.call('HDEL', ns .. ':breakers', breaker.name)
  else
    redis.call('HSET', ns .. ':breakers', breaker.name, table.concat({ breaker.state, int(breaker.failures),
      int(breaker.level), int(breaker.ends), int(breaker.room), int(breaker.asked) }, '|'))
  end
end

local function trials_key(name)
  return ns .. ':trials:' .. name
end

-- How many calls may begin now, at most `most`.
local function let_through(breaker, most)
  if breaker.state == 'closed' then
    return most
  elseif breaker.state == 'open' and breaker.ends > now then
    return 0
  end
  local room = breaker.state == 'open' and 1 or breaker.room
  local under_way = redis.call('ZCOUNT', trials_key(breaker.name), '(' .. int(now), '+inf')
  return math.max(0, math.min(most, room - under_way))
end

local function begin_trial(breaker, token, id, number, lease)
  if breaker.state ~= 'closed' then
    redis.call('ZADD', trials_key(breaker.name), int(now + lease), token .. ':' .. id .. ':' .. int(number))
    redis.call('PEXPIRE', trials_key(breaker.name), int(2 * lease))
  end
end

-- Whether this was a trial that counts: true once only, and not after its lease, when another may have been let
-- through.
local function end_trial(breaker, token, id, number)
  local call = token .. ':' .. id .. ':' .. int(number)
  local lease = breaker.state ~= 'closed' and redis.call('ZSCORE', trials_key(breaker.name), call)
  if not lease then
    return false
  end
  redis.call('ZREM', trials_key(breaker.name), call)
  return tonumber(lease) > now
end

-- The provider rests. Trials that are still under way were begun on an earlier hope, and count no more.
local function rest(breaker, rules)
  breaker.state, breaker.level = 'open', math.min(breaker.level + 1, 30)
  local length = math.min(rules.cap, rules.rest * 2 ^ (breaker.level - 1))
  breaker.ends, breaker.asked = now + math.max(length, breaker.asked), 0
  redis.call('DEL', trials_key(breaker.name))
  return table.concat({ 'opened', breaker.name, int(breaker.failures), int(breaker.ends) }, '|')
end

-- Takes in what one outcome says of the provider ('up', 'down' or ''); `counts`: it is the first telling of an attempt
-- that was the teller's own. Answers what changed for all to see, if anything did.
local function judge(breaker, rules, health, asked, counts, trial)
  local change
  if health == 'down' then
    if breaker.state == 'closed' and counts or trial then
      breaker.failures, breaker.asked = breaker.failures + 1, math.max(breaker.asked, asked)
      if trial or breaker.failures >= rules.failures then
        change = rest(breaker, rules)
      end
    elseif breaker.state == 'open' then
      breaker.ends = math.max(breaker.ends, now + asked)
    end
  elseif health == 'up' and breaker.state == 'closed' and counts then
    breaker.failures, breaker.asked = 0, 0
  elseif health == 'up' and trial then
    if breaker.state == 'open' then
      breaker.state, breaker.room, change = 'growing', 1, 'closed|' .. breaker.name .. '|0|0'
    end
    breaker.room, breaker.failures, breaker.ends = breaker.room + 1, 0, now + rules.cap
    if breaker.room > rules.successes then
      breaker.state, breaker.level = 'closed', 0
      redis.call('DEL', trials_key(breaker.name))
    end
  end
  return change
end
