-- Begins a fill, takes it over, or notes that slices of it are done.
-- ARGV from 3: the fill's key, the owner that must be recorded ('' for no fill), the group's epoch and the fill (JSON).
local stored, new = redis.call('GET', ARGV[3]), cjson.decode(ARGV[5])
stored = stored and cjson.decode(stored)
if stored and stored.epoch ~= group_epoch then stored = nil end
if (stored and stored.owner or '') ~= ARGV[4] then
  return redis.error_reply('FSOWNER ' .. (stored and 'another writer goes on with it' or 'none is recorded'))
end
if stored and stored.owner ~= new.owner and new.done > stored.done then
  return redis.error_reply(string.format('FSOWNER only %.0f slices of it are done', stored.done))
end
redis.call('SET', ARGV[3], ARGV[5])
return 1
