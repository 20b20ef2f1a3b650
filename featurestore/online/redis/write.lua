-- One batch of the write rule, atomically. All messages have the header drawn in message/codec.py: fence at byte 3, event_time at 29,
-- knowledge_time at 39, created_at at 49 (Lua counts from 1), each a little-endian int64. Doubles hold them exactly below 2^53. The
-- checksum leaves the fence out: it is lifted in place.
-- ARGV from 3: the state's key; the record that it must hold (a repair) or ''; table version and instant that the messages
--       reflect, or '' and ''; how many keys; 8 bytes of expiry in ms per key (0: never); the keys; the messages; then for each
--       key that had versions removed: its index, those versions (30 bytes each, tags included), and the expiry in ms that the
--       removed versions have.
-- Returns {written, left, index of each refused key ...}.
local record = redis.call('GET', ARGV[3])
if ARGV[4] ~= '' and record ~= ARGV[4] then
  return redis.error_reply('FSMARK the state is another')
end
local is_behind = false
if ARGV[5] ~= '' and record then
  local known = cjson.decode(record)
  local reached = known.next or known
  is_behind = tonumber(ARGV[5]) < reached.version or tonumber(ARGV[6]) < reached.as_of
end

local VERSIONS, FENCE = '<i8xxi8xxi8', '<i8'
local count = tonumber(ARGV[7])

local function is_below(stored, message)
  local e1, k1, c1 = struct.unpack(VERSIONS, stored, 29)
  local e2, k2, c2 = struct.unpack(VERSIONS, message, 29)
  if e1 ~= e2 then return e1 < e2 end
  if k1 ~= k2 then return k1 < k2 end
  return c1 < c2
end

local function is_among(version, versions)
  for at = 1, #versions, 30 do
    if string.sub(versions, at, at + 29) == version then return true end
  end
  return false
end

local function has_header(stored, message)
  for _, at in ipairs({1, 11, 21, 27, 37, 47}) do
    if string.sub(stored, at, at + 1) ~= string.sub(message, at, at + 1) then return false end
  end
  return #stored >= 56
end

local function put(key, message, expiry)
  if expiry == 0 then
    redis.call('SET', key, message)
  else
    redis.call('SET', key, message, 'PX', expiry)
  end
end

-- A key that a rewind touched may outlive its own expiry, to keep out versions that were removed: never shorten it.
local function put_for_longer(key, message, expiry)
  if expiry == 0 then
    redis.call('SET', key, message)
  else
    redis.call('SET', key, message, 'KEEPTTL')
    redis.call('PEXPIRE', key, expiry, 'GT')
  end
end

local removed = {}
for at = 9 + 2 * count, #ARGV, 3 do
  removed[tonumber(ARGV[at])] = {ARGV[at + 1], tonumber(ARGV[at + 2])}
end

local written, left, refused = 0, 0, {}
for i = 1, count do
  local key, message = ARGV[8 + i], ARGV[8 + count + i]
  local expiry = struct.unpack('<i8', ARGV[8], 8 * i - 7)
  local stored = redis.pcall('GETRANGE', key, 0, 55)
  if stored == '' and is_behind then
    refused[#refused + 1] = i -- it may have been evicted, and then nothing of it can tell that the message is old
  elseif stored == '' then
    put(key, message, expiry)
    written = written + 1
  else
    if type(stored) == 'table' and not string.find(stored.err, 'WRONGTYPE') then return stored end
    if type(stored) == 'table' or not has_header(stored, message) then
      return redis.error_reply('FSFOREIGN ' .. key)
    end
    local stored_fence, fence = struct.unpack(FENCE, stored, 3), struct.unpack(FENCE, message, 3)
    if stored_fence > fence then
      refused[#refused + 1] = i
    elseif is_below(stored, message) or (removed[i] and is_among(string.sub(stored, 27, 56), removed[i][1])) then
      if stored_fence == 0 then put(key, message, expiry) else put_for_longer(key, message, expiry) end
      written = written + 1
    else
      if stored_fence < fence then redis.call('SETRANGE', key, 2, string.sub(message, 3, 10)) end
      if removed[i] and removed[i][2] > 0 then redis.call('PEXPIRE', key, removed[i][2], 'GT') end
      left = left + 1
    end
  end
end
return {written, left, unpack(refused)}
