#!lua flags=no-writes,allow-cross-slot-keys
-- Reads keys of any slots of one node of a cluster.
-- KEYS: the part's epoch key. ARGV: more keys.
-- Returns the epoch, then what each key holds: nil for nothing, 0 for a key whose slot is with another node by now, 1 for a key
-- that holds another type than a message has.
local found = {redis.call('GET', KEYS[1])}
for i = 1, #ARGV do
  local stored = redis.pcall('GET', ARGV[i])
  if type(stored) == 'table' then
    stored = string.find(stored.err, 'WRONGTYPE') and 1 or 0
  end
  found[i + 1] = stored
end
return found
