-- Moves a group's record of its materialization state, if it still is what the writer read; a rebuild's ends the fill.
-- ARGV from 3: the state's key, its record as read or '' for none, its record from now on, the fill's key to remove or ''.
-- Returns 1, or 0 if the record is another by now.
if (redis.call('GET', ARGV[3]) or '') ~= ARGV[4] then return 0 end
redis.call('SET', ARGV[3], ARGV[5])
if ARGV[6] ~= '' then redis.call('DEL', ARGV[6]) end
return 1
