-- Keeps what rules and keys retain longer than the stream does. The text of script.lua follows this one.
--
-- Keys after the prefix of the log:
--   :bucket:<key>     a list for each topic or user with a rule: the messages that count, oldest first
--   :values           a hash of the values by key, by the digest of audience and key
--   :pieces           a hash by the same digest: number of the first piece since the last full value, time of the last
--   :shelf:<pattern>  a sorted set for each rule: "b" and a bucket, "v" or "p" and a digest, by the number of the newest
--   :bytes            a hash of the bytes of each member of a shelf
--   :shelves          a hash of the bytes of each shelf
--   :lost             a sorted set of keys of audiences, by the number through which messages for them may be lost
-- Those from which a loss would not be seen have a mark of the epoch: another program or the server may remove them.

local MAX_MEMBERS, MAX_STEPS = 10000, 8

local function text(number)
  return string.format('%.0f', number)
end

local function number_of(entry)
  return tonumber(string.match(entry, '^%d+'))
end

-- ``latest`` is the highest number before this call. Entries expire in Redis ``margin_ms`` later than by their rule: its
-- clock may jump. ``unknown`` becomes the number through which messages may be lost for every client, and ``gone`` that
-- for messages to everyone.
local function archive_of(prefix, epoch, latest, log_ms, margin_ms, max_bytes)
  local archive = {unknown = 0, gone = 0}
  local values, pieces, bytes = prefix .. ':values', prefix .. ':pieces', prefix .. ':bytes'
  local shelves, lost, mark = prefix .. ':shelves', prefix .. ':lost', 'e' .. epoch
  local checked, touched = {}, {}

  local function shelf_of(pattern)
    return prefix .. ':shelf:' .. pattern
  end

  local function bucket_of(key)
    return prefix .. ':bucket:' .. key
  end

  local function begin()
    for _, field in ipairs(redis.call('HKEYS', shelves)) do
      local shelf = shelf_of(string.sub(field, 2))
      for _, member in ipairs(redis.call('ZRANGE', shelf, 0, -1)) do
        if string.sub(member, 1, 1) == 'b' then redis.call('UNLINK', bucket_of(string.sub(member, 2))) end
      end
      redis.call('UNLINK', shelf)
    end
    redis.call('UNLINK', values, pieces, bytes, shelves, lost)
    for _, hash in ipairs({values, pieces, shelves}) do redis.call('HSET', hash, mark, 0) end
    redis.call('ZADD', lost, '+inf', mark)
    archive.unknown, checked = latest, {}
  end

  -- If a part of the archive is missing, anything in it may be lost.
  local function check(pattern)
    if not checked[0] then
      local is_whole = redis.call('ZSCORE', lost, mark)
      for _, hash in ipairs({values, pieces, shelves}) do
        is_whole = is_whole and redis.call('HEXISTS', hash, mark) == 1
      end
      if not is_whole then begin() end
      checked[0] = true
    end
    if pattern and not checked[pattern] then
      local shelf = shelf_of(pattern)
      if not redis.call('ZSCORE', shelf, mark) then
        if redis.call('HEXISTS', shelves, 's' .. pattern) == 1 then begin() end
        redis.call('HSET', shelves, 's' .. pattern, 0)
        redis.call('ZADD', shelf, '+inf', mark)
      end
      checked[0], checked[pattern] = true, true
    end
  end

  local function lose(key, number)
    redis.call('ZADD', lost, 'GT', text(number), key)
    if redis.call('ZCARD', lost) > MAX_MEMBERS then
      archive.unknown = math.max(archive.unknown, tonumber(redis.call('ZPOPMIN', lost)[2]))
    end
  end

  local function grow(pattern, member, size)
    if size == 0 then return end
    redis.call('HINCRBY', bytes, member, size)
    redis.call('HINCRBY', shelves, 's' .. pattern, size)
  end

  local function remove(pattern, member)
    redis.call('ZREM', shelf_of(pattern), member)
    redis.call('HINCRBY', shelves, 's' .. pattern, -tonumber(redis.call('HGET', bytes, member) or 0))
    redis.call('HDEL', bytes, member)
  end

  -- The time of the newest entry, or nil if there is none.
  local function time_of(member)
    local kind, name = string.sub(member, 1, 1), string.sub(member, 2)
    local entry
    if kind == 'b' then
      entry = redis.call('LINDEX', bucket_of(name), -1)
    else
      entry = redis.call('HGET', kind == 'v' and values or pieces, name)
    end
    return entry and tonumber(string.match(entry, '^%d+ (%d+)'))
  end

  local function drop(pattern, member, number)
    local kind, name = string.sub(member, 1, 1), string.sub(member, 2)
    if kind == 'b' then
      -- The rule of a topic may have changed, and with it the shelf: the list may have more than this one knows.
      local newest = redis.call('LINDEX', bucket_of(name), -1)
      lose(name, newest and math.max(number, number_of(newest)) or number)
      redis.call('UNLINK', bucket_of(name))
    elseif kind == 'p' then
      redis.call('HDEL', pieces, name)
    else
      local entry = redis.call('HGET', values, name)
      number = entry and math.max(number, number_of(entry) or 0) or number
      local size = entry and tonumber(string.match(entry, '^%d+ %d+ %d+ (%d+) '))
      local owner = size and string.match(entry, '^%d+ %d+ %d+ %d+ (.*)')
      if size == 0 then
        archive.gone = math.max(archive.gone, number)
      elseif owner then
        lose(string.sub(owner, 1, size), number)
      else
        archive.unknown = math.max(archive.unknown, number)
      end
      redis.call('HDEL', values, name)
    end
    remove(pattern, member)
  end

  local function lowest(pattern)
    local found = redis.call('ZRANGE', shelf_of(pattern), 0, 0, 'WITHSCORES')
    if found[1] and found[1] ~= mark then return found[1], tonumber(found[2]) end
  end

  local function keep_value(number, entry, pattern, id)
    local member = 'v' .. id
    local replaced = redis.call('HGET', values, id)
    redis.call('HSET', values, id, entry)
    redis.call('ZADD', shelf_of(pattern), text(number), member)
    grow(pattern, member, #entry - (replaced and #replaced or 0))
  end

  local function keep_in_bucket(number, entry, pattern, key, count, age_ms)
    local list, member, shelf, size = bucket_of(key), 'b' .. key, shelf_of(pattern), #entry
    local length = redis.call('RPUSH', list, entry)
    if length == 1 then
      -- It has expired, or was removed.
      local before = redis.call('ZSCORE', shelf, member)
      if before then
        lose(key, tonumber(before))
        remove(pattern, member)
      end
    end
    for _ = 1, math.min(2, length - count) do
      local oldest = redis.call('LPOP', list)
      size = size - #oldest
      lose(key, number_of(oldest))
    end
    redis.call('PEXPIRE', list, text(age_ms + margin_ms))
    redis.call('ZADD', shelf, text(number), member)
    grow(pattern, member, size)
  end

  -- ``kind``: "v" for a value, "a" for a piece, "d" for a tombstone, "m" for a message without a key. ``key``: the topic
  -- or user with a rule; for values without a rule, the first key of the audience, and an empty text for everyone.
  function archive.keep(number, now_ms, draft, kind, key, pattern, count, age_ms, id)
    check(pattern)
    touched[pattern] = age_ms
    if kind == 'v' or kind == 'd' then
      if redis.call('HDEL', pieces, id) == 1 then remove(pattern, 'p' .. id) end
    end
    local stamp = text(number) .. ' ' .. text(log_ms) .. ' ' .. text(now_ms) .. ' '
    if kind == 'v' then
      keep_value(number, stamp .. #key .. ' ' .. key .. draft, pattern, id)
      return
    elseif kind == 'd' then
      if redis.call('HDEL', values, id) == 1 then remove(pattern, 'v' .. id) end
    elseif kind == 'a' then
      local first = redis.call('HGET', pieces, id)
      redis.call('HSET', pieces, id, (first and string.match(first, '^%d+') or text(number)) .. ' ' .. text(log_ms))
      redis.call('ZADD', shelf_of(pattern), text(number), 'p' .. id)
      if not first then grow(pattern, 'p' .. id, #id) end
    end
    if count > 0 then keep_in_bucket(number, stamp .. draft, pattern, key, count, age_ms) end
  end

  -- The message is governed by the rule of another key, or by none.
  function archive.lose(key, number)
    check()
    lose(key, number)
  end

  -- In bounded steps: what is too old, and what exceeds the number of members or bytes. The largest shelf makes room.
  function archive.trim()
    for pattern, age_ms in pairs(touched) do
      for _ = 1, MAX_STEPS do
        local member, number = lowest(pattern)
        if not member then break end
        local time = time_of(member)
        if time and time > log_ms - age_ms and redis.call('ZCARD', shelf_of(pattern)) <= MAX_MEMBERS then break end
        drop(pattern, member, number)
      end
    end
    if not checked[0] then return end
    for _ = 1, MAX_STEPS do
      local held, total, largest, most = redis.call('HGETALL', shelves), 0, nil, 0
      for index = 1, #held, 2 do
        local size = tonumber(held[index + 1])
        total = total + size
        if size > most then largest, most = string.sub(held[index], 2), size end
      end
      local member, number
      if total > max_bytes and largest then member, number = lowest(largest) end
      if not member then break end
      drop(largest, member, number)
    end
  end

  return archive
end
