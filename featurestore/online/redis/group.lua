#!lua flags=allow-cross-slot-keys
-- What every script that writes begins with: the group still has the epoch that the writer read, in the same run of the server
-- (another run may have lost the last writes that the one before acknowledged). In a cluster, keys of all the slots that a node
-- owns are written in one call, so only the key that routes it is declared.
-- KEYS: the part's epoch key. ARGV: the group's epoch, the group's generation's key, then what each script says.
local server_epoch, generation = redis.call('GET', KEYS[1]), redis.call('GET', ARGV[2])
local group_epoch = server_epoch and server_epoch .. (generation or '')
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
if not group_epoch or (ARGV[1] ~= group_epoch and ARGV[1] ~= group_epoch .. '@' .. run) then
  return redis.error_reply('FSEPOCH the epoch is another')
end
