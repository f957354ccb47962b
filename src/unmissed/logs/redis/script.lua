-- Stamps and stores publishes, and returns what the log holds. One call is atomic.
--
-- KEYS: the life of the log (a hash), its messages (a stream), its idempotency keys (a prefix of hashes), and for each
--       publish the key of its receipt, if it has no idempotency key.
-- ARGV: what the caller has seen (epoch, latest number, milliseconds of that message; an empty epoch for nothing),
--       a name for a new epoch, the first number of the first epoch (0 for the time), the number of messages to keep,
--       the milliseconds after which Redis deletes them, the milliseconds that nodes have to report what they have seen,
--       the time on the clock of the log as the caller knows it, or -1, the number of idempotency keys to keep for all
--       owners, an eighth of the milliseconds to keep them, the milliseconds to recognise a publish without a key, the
--       run of the server that answered the caller last (or an empty text), 1 if the server loses nothing that it has
--       answered or else 0, the milliseconds until a change is on the disk, and the channel of the nodes if the caller
--       closes the log (or an empty text), the patterns of the rules as one text, the prefix of all keys, and the bytes
--       of the archive.
--       Then for each publish: its fingerprint, its idempotency key and the owner of that (or two empty texts), the
--       number of messages, and the number of arguments for them. For each message: its text, and what the archive does
--       with it: "" for nothing, as no rule is about its keys, "*" if it is for everyone, or one of "m", "v", "a" and "d" as in archive.lua, with the
--       key of the bucket, the pattern of its rule, the number and the milliseconds to keep, the digest of a value, the
--       number of other keys that have a rule, and them, and "*" for those without one. A count of 0 keeps it in no bucket.
-- Returns the milliseconds until publishes are stored again, epoch, first number, oldest stored after what was seen,
--         latest, time of the log, the number through which messages may be lost, the run of the server, 1 if messages
--         of another program were removed or else 0, 1 if the mark of an orderly close was set or removed or else 0,
--         and for each publish 1 if it was stored now, 0 if it was before, and its receipt: first number, count,
--         milliseconds, epoch, fingerprint; or 2 if its key could not be remembered, and the milliseconds until others
--         are forgotten.

local life, messages = KEYS[1], KEYS[2]
local seen_epoch, seen_latest, seen_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local new_epoch, first_number = ARGV[4], tonumber(ARGV[5])
local max_messages, keep_ms, settle_ms, caller_ms = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local max_keys, slice_ms, retry_ms = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local seen_run, keeps_all, hold_ms, closing = ARGV[13], ARGV[14], tonumber(ARGV[15]), ARGV[16]
local rules, prefix, max_bytes = ARGV[17], ARGV[18], tonumber(ARGV[19])
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now_ms = math.floor(now_us / 1000)

-- The id of this run of the server. It changes with a restart, and when another server takes over.
local function server_run()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end

if #KEYS == 3 then
  -- A replica cannot write, and may not have the last writes. Nodes that only read find out here.
  local replication = redis.pcall('INFO', 'replication')
  if type(replication) == 'string' and string.find(replication, 'role:slave') then
    return redis.error_reply('READONLY this server is a replica')
  end
end

-- Whether another server was replaced by this one, a replica that may not have had everything.
local function was_promoted()
  local replication = redis.pcall('INFO', 'replication')
  local other = type(replication) == 'string' and string.match(replication, 'master_replid2:(%w+)')
  return not other or string.find(other, '[^0]') ~= nil
end

local held = redis.call('HMGET', life, 'epoch', 'first', 'latest', 'run', 'settle_until', 'log', 'clock', 'keys',
  'vouched', 'lost', 'skip', 'closed', 'keeps_all', 'rules', 'unknown', 'gone', 'broadcast', 'earlier', 'segment',
  'other', 'other_earlier', 'other_segment')
local epoch, first, latest = held[1], tonumber(held[2] or 0), tonumber(held[3] or 0)
local run, vouched, lost, skip = held[4], held[9], tonumber(held[10] or 0), held[11] == '1'
local closed, kept_all = held[12], held[13] or '0'
local unknown, gone = tonumber(held[15] or 0), tonumber(held[16] or 0)
local broadcast, earlier, segment = tonumber(held[17] or 0), tonumber(held[18] or 0), tonumber(held[19] or 0)
local other, other_earlier, other_segment = tonumber(held[20] or 0), tonumber(held[21] or 0), tonumber(held[22] or 0)
local settle_until, longest_ms = tonumber(held[5] or 0), math.max(settle_ms, hold_ms)
if settle_until > now_ms + longest_ms then
  -- The clock of the server was set back.
  settle_until = now_ms + longest_ms
  redis.call('HSET', life, 'settle_until', text(settle_until))
end

-- The clock of the log, whose differences are ages, advances with the monotonic clocks of the nodes. Only a node that has
-- just started has no time of it, and adds the time on the wall clock since the last call: seconds, if other nodes run.
-- The clock of idempotency keys stops for that time: it may not really have passed, and keeping keys is safe.
local log_ms, clock_ms, keys_ms = tonumber(held[6] or 0), tonumber(held[7] or 0), tonumber(held[8] or 0)
if caller_ms < 0 then
  log_ms = log_ms + math.max(0, now_ms - clock_ms)
else
  keys_ms = keys_ms + math.max(0, caller_ms - log_ms)
  log_ms = math.max(log_ms, caller_ms)
end

-- Whether messages that the caller has seen are missing, or other messages have their numbers.
local function has_lost_messages()
  if seen_epoch == '' then return false end
  if seen_epoch ~= epoch then return seen_latest >= first end
  if seen_latest > latest then return true end
  if seen_ms == '0' then return false end
  local entry = redis.call('XRANGE', messages, text(seen_latest) .. '-0', text(seen_latest) .. '-0')[1]
  if entry then return entry[2][2] ~= seen_ms end
  -- It was trimmed, it is among those that are reported as lost, or its number was skipped after it was lost.
  local oldest = seen_latest > lost and redis.call('XRANGE', messages, '-', '+', 'COUNT', 1)[1]
  return oldest and tonumber(string.match(oldest[1], '^%d+')) < seen_latest
end

local this_run = server_run()
if not epoch or has_lost_messages() then
  epoch = new_epoch
  -- At least one number is skipped, so that a reader always notices the new epoch.
  first = math.max(now_us + 1, latest + 2, seen_latest + 2)
  if first_number > 0 and seen_epoch == '' and not held[1] then first = first_number end
  latest, run, vouched, settle_until, lost, skip, closed = first - 1, this_run, this_run, 0, 0, false, false
  unknown, gone, broadcast, earlier, segment, other, other_earlier, other_segment = 0, 0, 0, 0, 0, 0, 0, 0
  redis.call('DEL', messages)
  redis.call('HDEL', life, 'lost', 'skip', 'closed', 'unknown', 'gone', 'broadcast', 'earlier', 'segment',
    'other', 'other_earlier', 'other_segment')
  redis.call('HSET', life, 'epoch', epoch, 'first', text(first), 'latest', text(latest), 'run', run, 'vouched', run,
    'settle_until', 0)
elseif run ~= this_run then
  -- This copy may be an old one. Before a number is used, nodes that have seen more get time to report it.
  run, settle_until = this_run, now_ms + settle_ms
  redis.call('HSET', life, 'run', run, 'settle_until', text(settle_until))
end

-- The server was restarted or replaced, and may have lost its newest messages. It has not if a node that had this epoch
-- before finds all that it has seen, if the last node has closed the log, or if the server keeps all that it answers.
-- In any case, the numbers go on at the wall clock, above all that can have been used.
if vouched ~= run then
  if seen_run ~= '' and seen_run ~= run and seen_epoch == epoch or closed == text(latest) then
    vouched, skip = run, true
  elseif now_ms >= settle_until then
    vouched, skip = run, kept_all == '1' and not was_promoted()
    if not skip then
      latest = math.max(now_us, latest + 1)
      lost = latest
    end
  end
  if vouched == run then
    redis.call('HSET', life, 'vouched', run, 'skip', skip and 1 or 0, 'latest', text(latest), 'lost', text(lost))
  end
end

-- The mark of an orderly close must be gone from the disk before a message follows that could be lost. So no message is
-- stored until then, and only the last node leaves a mark: it would delay the other ones.
local has_changed_mark = 0
if closing == '' and closed then
  settle_until = math.max(settle_until, now_ms + hold_ms)
  redis.call('HDEL', life, 'closed')
  redis.call('HSET', life, 'settle_until', text(settle_until))
  has_changed_mark = 1
elseif closing ~= '' and seen_epoch == epoch and vouched == run and now_ms >= settle_until then
  local listening = redis.pcall('PUBSUB', 'NUMSUB', closing)
  if listening[2] == 0 then
    redis.call('HSET', life, 'closed', text(latest))
    has_changed_mark = 1
  end
end

-- Idempotency keys are forgotten together, in hashes of an eighth of their time on their own clock: the expiry of Redis
-- would follow jumps of its clock. A hash has a receipt for each key, a count for each owner, and one for both: each
-- key takes a place, and each owner one in each hash. Fields of receipts begin with a colon, which no owner has.
local slice = math.floor(keys_ms / slice_ms)

local function receipt_of(key)
  for each = slice, slice - 8, -1 do
    local receipt = redis.call('HGET', KEYS[3] .. text(each), ':' .. key)
    if receipt then return receipt end
  end
end

local counted = {}
local function count_of(owner)
  if not counted[owner] then
    counted[owner] = 0
    for each = slice - 8, slice do
      counted[owner] = counted[owner] + tonumber(redis.call('HGET', KEYS[3] .. text(each), owner) or 0)
    end
  end
  return counted[owner]
end

-- The rule of ``has_room`` in receipts.py.
local function has_room(owner)
  local mine, free = count_of(owner), max_keys - count_of('')
  if mine >= math.max(1, math.floor(max_keys / 4096)) then free = free - math.floor(max_keys / 8) end
  return mine < free
end

local function add_to(owner)
  counted[owner] = count_of(owner) + 1
  return redis.call('HINCRBY', KEYS[3] .. text(slice), owner, 1)
end

local function remember(key, owner, receipt)
  if redis.call('EXISTS', KEYS[3] .. text(slice)) == 0 then
    for each = slice - 17, slice - 9 do redis.call('UNLINK', KEYS[3] .. text(each)) end
  end
  redis.call('HSET', KEYS[3] .. text(slice), ':' .. key, receipt)
  add_to('')
  if add_to(owner) == 1 then add_to('') end
  redis.call('PEXPIRE', KEYS[3] .. text(slice), keep_ms)
end

-- The id of an entry is its number. Entries above the latest number are of another program, and would block the next.
local has_removed = 0
local function remove_foreign()
  local copy = messages .. ':copy'
  -- The copy comes first: it may fail if memory runs out.
  redis.call('DEL', copy)
  for _, entry in ipairs(redis.call('XRANGE', messages, '-', text(latest) .. '-0')) do
    redis.call('XADD', copy, entry[1], unpack(entry[2]))
  end
  redis.call('DEL', messages)
  if redis.call('EXISTS', copy) == 1 then
    redis.call('RENAME', copy, messages)
    redis.call('PEXPIRE', messages, keep_ms)
  end
  has_removed = 1
end

local function store(draft, skipped_after)
  local entry = {messages, 'MAXLEN', '~', ARGV[6], text(latest + 1) .. '-0', 'ms', text(now_ms),
    'log', text(log_ms), 'draft', draft}
  if skipped_after then
    entry[#entry + 1], entry[#entry + 2] = 'after', text(skipped_after)
  end
  local reply = redis.pcall('XADD', unpack(entry))
  if reply.err then
    if string.find(reply.err, 'equal or smaller') then remove_foreign() end
    redis.call('XADD', unpack(entry))
  end
  latest = latest + 1
end

if #KEYS == 3 and redis.call('XRANGE', messages, '(' .. text(latest) .. '-0', '+', 'COUNT', 1)[1] then
  remove_foreign()
end

local results, before = {}, latest
local next_argument, stored = 20, false
local archive = archive_of(prefix, epoch, latest, log_ms, tonumber(keep_ms), max_bytes)

-- The last message to everyone below the oldest one in the stream is known if it is the newest of all, or if the newest
-- ones began at a number that is in the stream.
local function count_broadcast(number)
  if number >= segment + max_messages then segment, earlier = number, broadcast end
  broadcast = number
end

-- The same for the last message to a key that no rule is about.
local function count_other(number)
  if number >= other_segment + max_messages then other_segment, other_earlier = number, other end
  other = number
end

-- Archive a message whose arguments begin at ``index``, and return the index of the next one.
local function keep(number, index)
  local kind = ARGV[index + 1]
  if kind == '' then
    count_other(number)
    return index + 2
  end
  if kind == '*' then
    count_broadcast(number)
    return index + 2
  end
  local key, pattern, id = ARGV[index + 2], ARGV[index + 3], ARGV[index + 6]
  local count, age_ms, others = tonumber(ARGV[index + 4]), tonumber(ARGV[index + 5]), tonumber(ARGV[index + 7])
  if count > 0 or kind ~= 'm' then
    archive.keep(number, now_ms, ARGV[index], kind, key, pattern, count, age_ms, id)
  end
  if key == '' and kind ~= 'v' and kind ~= 'm' then count_broadcast(number) end
  for each = 1, others do
    local other_key = ARGV[index + 7 + each]
    if other_key == '*' then count_other(number) else archive.lose(other_key, number) end
  end
  return index + 8 + others
end

if now_ms >= settle_until then
  for index = 4, #KEYS do
    local fingerprint, key, owner = ARGV[next_argument], ARGV[next_argument + 1], ARGV[next_argument + 2]
    local count, size = tonumber(ARGV[next_argument + 3]), tonumber(ARGV[next_argument + 4])
    local has_key = key ~= ''
    local receipt, outcome = has_key and receipt_of(key) or not has_key and redis.call('GET', KEYS[index]), 0
    if not receipt and has_key and not has_room(owner) then
      receipt, outcome = text((slice + 1) * slice_ms - keys_ms), 2
    elseif not receipt then
      local skipped_after
      if skip then skip, skipped_after, latest = false, latest, math.max(now_us, latest + 1) end
      receipt = table.concat({text(latest + 1), text(count), text(now_ms), epoch, fingerprint}, ' ')
      outcome, stored = 1, true
      local argument = next_argument + 5
      for offset = 1, count do
        store(ARGV[argument], offset == 1 and skipped_after)
        argument = keep(latest, argument)
      end
      if has_key then
        remember(key, owner, receipt)
      else
        redis.call('SET', KEYS[index], receipt, 'PX', retry_ms)
      end
    end
    results[#results + 1] = outcome
    results[#results + 1] = receipt
    next_argument = next_argument + 5 + size
  end
end
if stored or caller_ms < 0 or math.abs(now_ms - clock_ms) > 5000 then
  redis.call('HSET', life, 'log', text(log_ms), 'clock', text(now_ms), 'keys', text(keys_ms))
end
if stored then
  archive.trim()
  -- Earlier messages were kept by other rules.
  if rules ~= held[14] then archive.unknown = math.max(archive.unknown, before) end
  redis.call('HSET', life, 'latest', text(latest), 'skip', skip and 1 or 0, 'rules', rules,
    'unknown', text(math.max(unknown, archive.unknown)), 'gone', text(math.max(gone, archive.gone)),
    'broadcast', text(broadcast), 'earlier', text(earlier), 'segment', text(segment),
    'other', text(other), 'other_earlier', text(other_earlier), 'other_segment', text(other_segment))
  redis.call('PEXPIRE', messages, keep_ms)
  if keeps_all ~= kept_all then redis.call('HSET', life, 'keeps_all', keeps_all) end
end

-- A damaged stream may have holes: the caller continues after the one that follows what it has seen. Numbers that were
-- skipped are none.
local start = seen_epoch == epoch and seen_latest + 1 or first
local entry = redis.call('XRANGE', messages, text(start), '+', 'COUNT', 1)[1]
local oldest = entry and tonumber(string.match(entry[1], '^%d+')) or latest + 1
if entry and (tonumber(entry[2][8]) or start) < start then oldest = start end
return {
  text(math.max(0, settle_until - now_ms)), epoch, text(first), text(oldest), text(latest), text(log_ms), text(lost),
  run, has_removed, has_changed_mark, unpack(results)
}
