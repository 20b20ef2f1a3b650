-- Moves a group's materialization state, under the epoch it belongs to and never backwards.
-- KEYS: the epoch's key, the group's generation's key, the state's key.
-- ARGV: the group's epoch, the new state (JSON), '1' for a rebuild.
local epoch, generation = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if not epoch or epoch .. (generation or '') ~= ARGV[1] then
  return redis.error_reply('FSEPOCH the epoch is another')
end
if ARGV[3] ~= '1' then
  local record = redis.call('GET', KEYS[3])
  if not record then return redis.error_reply('FSSTATE none is recorded') end
  local stored, new = cjson.decode(record), cjson.decode(ARGV[2])
  if stored.epoch ~= new.epoch then return redis.error_reply('FSSTATE what is recorded is of another epoch') end
  if stored.table_id ~= new.table_id then return redis.error_reply('FSSTATE what is recorded is of another table') end
  if new.version < stored.version or new.as_of < stored.as_of then
    return redis.error_reply(string.format('FSSTATE it is at version %.0f as of %.0f us', stored.version, stored.as_of))
  end
end
redis.call('SET', KEYS[3], ARGV[2])
return 1
