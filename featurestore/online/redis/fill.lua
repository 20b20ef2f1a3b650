-- Stores messages without looking at what is there, for the owner of the group's fill.
-- ARGV from 3: the fill's key, its owner, how many keys, 8 bytes of expiry in ms per key (0: never), the keys, the messages.
local record = redis.call('GET', ARGV[3])
local fill = record and cjson.decode(record)
if not fill or fill.epoch ~= group_epoch or fill.owner ~= ARGV[4] then
  return redis.error_reply('FSOWNER ' .. (fill and 'another writer goes on with it' or 'none is recorded'))
end
local count = tonumber(ARGV[5])

local function set(first, last, expiry)
  for i = first, last do
    if expiry == 0 then
      redis.call('SET', ARGV[6 + i], ARGV[6 + count + i])
    else
      redis.call('SET', ARGV[6 + i], ARGV[6 + count + i], 'PX', expiry)
    end
  end
end

-- The same by one command: Valkey has it from 9.1 on; in a cluster it would take keys of one slot only.
local function set_together(first, last, expiry)
  local arguments = {}
  for i = first, last do
    arguments[#arguments + 1] = ARGV[6 + i]
    arguments[#arguments + 1] = ARGV[6 + count + i]
  end
  if expiry ~= 0 then
    arguments[#arguments + 1], arguments[#arguments + 2] = 'PX', expiry
  end
  redis.call('MSETEX', last - first + 1, unpack(arguments))
end

local MOST_TOGETHER = 1000 -- Lua's stack holds 8,000 values
local has_msetex = (redis.VALKEY_VERSION_NUM or 0) >= 0x90100 and not string.find(KEYS[1], '{', 1, true)
if has_msetex and redis.acl_check_cmd('MSETEX', '1', ARGV[7] or '', '') then set = set_together end

local first, own = 1, string.sub(ARGV[6], 1, 8)
for i = 2, count + 1 do
  local following = string.sub(ARGV[6], 8 * i - 7, 8 * i)
  if following ~= own or i - first == MOST_TOGETHER then
    set(first, i - 1, struct.unpack('<i8', own))
    first, own = i, following
  end
end
return count
