-- Forgets entries of the journal. A transaction would do as well, but Redis at its memory limit takes none.
-- ARGV: namespace, consumer group, then for each: id, its size in bytes or '' where the caller does not know.

local ids, freed = {}, 0
for position = 3, #ARGV, 2 do
  local id, size = ARGV[position], tonumber(ARGV[position + 1])
  if not size then
    local entry = redis.call('XRANGE', ns .. ':facts', id, id)[1]
    size = entry and #entry[2][2] or 0
  end
  table.insert(ids, id)
  freed = freed + redis.call('XDEL', ns .. ':facts', id) * size
end
redis.call('XACK', ns .. ':facts', ARGV[2], unpack(ids))
if redis.call('XLEN', ns .. ':facts') == 0 then
  redis.call('DEL', ns .. ':facts:bytes')
elseif freed > 0 then
  local left = tonumber(redis.call('GET', ns .. ':facts:bytes') or 0) - freed
  redis.call('SET', ns .. ':facts:bytes', int(math.max(0, left)))
end
return 1
