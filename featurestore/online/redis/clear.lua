-- Removes keys of a group; with a new generation, begins that one and forgets the state and the fill first.
-- ARGV from 3: the new generation or '', the state's key, the fill's key, then keys to remove.
if ARGV[3] ~= '' then
  redis.call('SET', ARGV[2], ARGV[3])
  redis.call('DEL', ARGV[4])
  redis.call('DEL', ARGV[5])
end
for i = 6, #ARGV do
  redis.call('UNLINK', ARGV[i])
end
return #ARGV - 5
