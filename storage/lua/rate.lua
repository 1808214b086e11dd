-- Token buckets: how many messages a provider is given, over all processes (docs/adr/0013).
--
-- A bucket is the string `rate:<channel>:<provider>`: "debt|at", how many millionths of a message it lacked of being
-- full, and when that was, in ms. A full one is not there, so that nothing is left of a provider that is at rest. A
-- limit is "<channel>:<provider>|<messages in 1,000 s>|<burst>", or '' for none.

local MESSAGE = 1000000

local function load_bucket(limit)
  local name, fill, burst = string.match(limit, '^([^|]*)|(%d+)|(%d+)$')
  if not name then
    return nil
  end
  local bucket = { key = ns .. ':rate:' .. name, fill = tonumber(fill), full = tonumber(burst) * MESSAGE, debt = 0 }
  local debt, at = string.match(redis.call('GET', bucket.key) or '', '^(%d+)|(%d+)$')
  if debt then
    -- A clock that was set back adds nothing, and takes nothing away.
    bucket.debt = math.max(0, tonumber(debt) - math.max(0, now - tonumber(at)) * bucket.fill)
  end
  return bucket
end

local function save_bucket(bucket)
  if bucket.debt > 0 then
    redis.call('SET', bucket.key, int(bucket.debt) .. '|' .. int(now), 'PX', int(bucket.debt / bucket.fill + 1))
  else
    redis.call('DEL', bucket.key)
  end
end

-- How many messages may begin now, at most `most`.
local function tokens(bucket, most)
  return bucket and math.max(0, math.min(most, math.floor((bucket.full - bucket.debt) / MESSAGE))) or most
end

local function taken_key(token)
  return ns .. ':taken:' .. token
end

-- Takes tokens for a claim, and remembers for as long as it holds when that was.
local function take_tokens(bucket, count, token, lease)
  if bucket and count > 0 then
    bucket.debt = bucket.debt + count * MESSAGE
    save_bucket(bucket)
    redis.call('SET', taken_key(token), int(now), 'PX', int(lease))
  end
end

-- Gives back the tokens of a claim that did not begin; but not what has flowed in since they were taken: a bucket that
-- would have been full by then would not have kept it.
local function give_back_tokens(bucket, count, token)
  local taken = bucket and count > 0 and redis.call('GET', taken_key(token))
  if taken then
    local flowed = math.max(0, now - tonumber(taken)) * bucket.fill
    bucket.debt = math.max(0, bucket.debt - math.max(0, count * MESSAGE - flowed))
    save_bucket(bucket)
  end
end
