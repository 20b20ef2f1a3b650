-- Removes keys of a group, under the epoch the group has; with a new generation, begins that one and forgets the state first.
-- KEYS: the epoch's key, the group's generation's key, the state's key, then keys to remove.
-- ARGV: the group's epoch; the new generation, or ''.
local epoch, generation = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if not epoch or epoch .. (generation or '') ~= ARGV[1] then
  return redis.error_reply('FSEPOCH the epoch is another')
end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[2], ARGV[2])
  redis.call('DEL', KEYS[3])
end
for i = 4, #KEYS do
  redis.call('UNLINK', KEYS[i])
end
return #KEYS - 3
