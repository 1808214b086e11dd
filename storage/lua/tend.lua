-- Looks after the journal's consumer group: takes persisters that hold nothing off its list, and delivers anew what
-- nobody holds though it counts as delivered. In one step: one that takes entries in between would lose them for good.
-- ARGV: namespace, consumer group, for how long one has been idle (ms), whose name goes (or '' for all).
-- Answers how many names went.

local key, group, idle, only = ns .. ':facts', ARGV[2], tonumber(ARGV[3]), ARGV[4]

local function named(list)
  local found = {}
  for position = 1, #list, 2 do
    found[list[position]] = list[position + 1]
  end
  return found
end

local function order(id)
  local milliseconds, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(milliseconds), tonumber(sequence)
end

local consumers = redis.pcall('XINFO', 'CONSUMERS', key, group)
if consumers.err then
  return 0 -- no journal, or no group yet
end
local gone = 0
for _, each in ipairs(consumers) do
  local known = named(each)
  if known.pending == 0 and known.idle >= idle and (only == '' or only == known.name) then
    redis.call('XGROUP', 'DELCONSUMER', key, group, known.name)
    gone = gone + 1
  end
end

local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
if first and #redis.call('XPENDING', key, group, first[1], first[1], 1) == 0 then
  for _, each in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local known = named(each)
    if known.name == group then
      local first_ms, first_number = order(first[1])
      local last_ms, last_number = order(known['last-delivered-id'])
      if first_ms < last_ms or (first_ms == last_ms and first_number <= last_number) then
        redis.call('XGROUP', 'SETID', key, group, '0')
      end
    end
  end
end
return gone
