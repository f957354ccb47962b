-- Stamps and stores publishes, and returns what the log holds. One call is atomic.
--
-- KEYS: the life of the log (a hash), its messages (a stream), its idempotency keys (a prefix of hashes), and for each
--       publish the key of its receipt, if it has no idempotency key.
-- ARGV: what the caller has seen (epoch, latest number, milliseconds of that message; an empty epoch for nothing),
--       a name for a new epoch, the first number of the first epoch (0 for the time), the number of messages to keep,
--       the milliseconds after which Redis deletes them, the milliseconds that nodes have to report what they have seen,
--       the time on the clock of the log as the caller knows it, or -1, the number of idempotency keys to keep for all
--       owners, an eighth of the milliseconds to keep them, and the milliseconds to recognise a publish without a key.
--       Then for each publish: its fingerprint, its idempotency key and the owner of that (or two empty texts), the
--       number of messages, and them.
-- Returns "ok" or "settling", epoch, first number, oldest stored after what was seen, latest, time of the log,
--         1 if messages of another program were removed or else 0, and for each publish 1 if it was stored now, 0 if it
--         was before, and its receipt: first number, count, milliseconds, epoch, fingerprint; or 2 if its key could not
--         be remembered, and the milliseconds until others are forgotten.

local life, messages = KEYS[1], KEYS[2]
local seen_epoch, seen_latest, seen_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local new_epoch, first_number = ARGV[4], tonumber(ARGV[5])
local max_messages, keep_ms, settle_ms, caller_ms = ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local max_keys, slice_ms, retry_ms = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now_ms = math.floor(now_us / 1000)

local function text(number)
  return string.format('%.0f', number)
end

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

local held = redis.call('HMGET', life, 'epoch', 'first', 'latest', 'run', 'settle_until', 'log', 'clock', 'keys')
local epoch, first, latest = held[1], tonumber(held[2] or 0), tonumber(held[3] or 0)
local run, settle_until = held[4], tonumber(held[5] or 0)

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
  return entry ~= nil and entry[2][2] ~= seen_ms
end

if not epoch or has_lost_messages() then
  epoch = new_epoch
  -- At least one number is skipped, so that a reader always notices the new epoch.
  first = math.max(now_us + 1, latest + 2, seen_latest + 2)
  if first_number > 0 and seen_epoch == '' and not held[1] then first = first_number end
  latest, run, settle_until = first - 1, server_run(), 0
  redis.call('DEL', messages)
  redis.call('HSET', life, 'epoch', epoch, 'first', text(first), 'latest', text(latest), 'run', run, 'settle_until', 0)
elseif run ~= server_run() then
  -- This copy may be an old one. Before a number is used, nodes that have seen more get time to report it.
  settle_until = now_ms + settle_ms
  redis.call('HSET', life, 'run', server_run(), 'settle_until', text(settle_until))
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

local function store(draft)
  local entry = {messages, 'MAXLEN', '~', max_messages, text(latest + 1) .. '-0', 'ms', text(now_ms),
    'log', text(log_ms), 'draft', draft}
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

local results = {}
local next_argument, stored = 13, false
if now_ms >= settle_until then
  for index = 4, #KEYS do
    local fingerprint, key, owner = ARGV[next_argument], ARGV[next_argument + 1], ARGV[next_argument + 2]
    local count, has_key = tonumber(ARGV[next_argument + 3]), key ~= ''
    local receipt, outcome = has_key and receipt_of(key) or not has_key and redis.call('GET', KEYS[index]), 0
    if not receipt and has_key and not has_room(owner) then
      receipt, outcome = text((slice + 1) * slice_ms - keys_ms), 2
    elseif not receipt then
      receipt = table.concat({text(latest + 1), text(count), text(now_ms), epoch, fingerprint}, ' ')
      outcome, stored = 1, true
      for offset = 1, count do store(ARGV[next_argument + 3 + offset]) end
      if has_key then
        remember(key, owner, receipt)
      else
        redis.call('SET', KEYS[index], receipt, 'PX', retry_ms)
      end
    end
    results[#results + 1] = outcome
    results[#results + 1] = receipt
    next_argument = next_argument + 4 + count
  end
end
if stored or caller_ms < 0 or math.abs(now_ms - clock_ms) > 5000 then
  redis.call('HSET', life, 'log', text(log_ms), 'clock', text(now_ms), 'keys', text(keys_ms))
end
if stored then
  redis.call('HSET', life, 'latest', text(latest))
  redis.call('PEXPIRE', messages, keep_ms)
end

-- A damaged stream may have holes: the caller continues after the one that follows what it has seen.
local start = text(seen_epoch == epoch and seen_latest + 1 or first)
local oldest = redis.call('XRANGE', messages, start, '+', 'COUNT', 1)[1]
return {
  now_ms >= settle_until and 'ok' or 'settling', epoch, text(first),
  oldest and string.match(oldest[1], '^%d+') or text(latest + 1), text(latest), text(log_ms),
  has_removed, unpack(results)
}
