-- A chunk with its event, and the contacts of its people as far as they were named and are known here.
-- ARGV: namespace, event, chunk.
-- Answers the event's content or '', its entry, and as JSON lists the people and the contacts.

local state = redis.call('HMGET', event_key(ARGV[2]), 'content', 'entry')
local people, contacts = redis.call('LRANGE', ns .. ':chunk:' .. ARGV[2] .. ':' .. ARGV[3], 0, -1), {}
for _, person in ipairs(people) do
  local user = string.match(person, '^{"id":"([^"]*)"')
  local contact = user and redis.call('HGET', ns .. ':profile:' .. user, 'contact')
  if contact then
    table.insert(contacts, contact)
  end
end
return {
  state[1] or '', state[2] or '', '[' .. table.concat(people, ',') .. ']', '[' .. table.concat(contacts, ',') .. ']',
}
