#!lua flags=allow-cross-slot-keys
-- Keeps what a look found of groups, unless a newer look, or the same, is there already. It is of no epoch: it tells of the group,
-- not of the copy.
-- KEYS: the part's epoch key, which routes it. ARGV: how long records are kept in ms, then for each group its key, the instant of the
-- look in microseconds (exact as a double: below 2^53) and the record.
-- Returns how many were kept.
local kept = 0
for i = 2, #ARGV, 3 do
  local stored = redis.pcall('GET', ARGV[i])
  local is_read, known = pcall(cjson.decode, type(stored) == 'string' and stored or '')
  local looked_at = is_read and type(known) == 'table' and tonumber(known.looked_at)
  if not looked_at or looked_at < tonumber(ARGV[i + 1]) then
    redis.call('SET', ARGV[i], ARGV[i + 2], 'PX', ARGV[1])
    kept = kept + 1
  end
end
return kept
