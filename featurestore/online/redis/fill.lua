-- Stores messages without looking at what is there, for the owner of the group's fill.
-- ARGV from 3: the fill's key, its owner, how many keys, 8 bytes of expiry in ms per key (0: never), the keys, the messages.
local record = redis.call('GET', ARGV[3])
local fill = record and cjson.decode(record)
if not fill or fill.epoch ~= group_epoch or fill.owner ~= ARGV[4] then
  return redis.error_reply('FSOWNER ' .. (fill and 'another writer goes on with it' or 'none is recorded'))
end
local count = tonumber(ARGV[5])
for i = 1, count do
  local expiry = struct.unpack('<i8', ARGV[6], 8 * i - 7)
  if expiry == 0 then
    redis.call('SET', ARGV[6 + i], ARGV[6 + count + i])
  else
    redis.call('SET', ARGV[6 + i], ARGV[6 + count + i], 'PX', expiry)
  end
end
return count
