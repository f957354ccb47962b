-- Stamps and stores publishes, and returns what the log holds. One call is atomic.
--
-- KEYS: the life of the log (a hash), its messages (a stream), where receipts are counted (a prefix of hashes), and for
--       each publish the key of its receipt.
-- ARGV: what the caller has seen (epoch, latest number, milliseconds of that message; an empty epoch for nothing),
--       a name for a new epoch, the first number of the first epoch (0 for the time), the number of messages to keep,
--       the milliseconds to keep them, the milliseconds that nodes have to report what they have seen, and the number of
--       receipts to keep for all owners. Then for each publish: its fingerprint, the milliseconds to keep its receipt,
--       the owner of its key (empty if it is not counted), the number of messages, and them.
-- Returns "ok" or "settling", epoch, first number, oldest stored after what was seen, latest, time in milliseconds, and for each publish
--         1 if it was stored now, 0 if it was before, and its receipt: first number, count, milliseconds, epoch,
--         fingerprint; or 2 if its key could not be remembered, and the milliseconds until others are forgotten.

local life, messages = KEYS[1], KEYS[2]
local seen_epoch, seen_latest, seen_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local new_epoch, first_number = ARGV[4], tonumber(ARGV[5])
local max_messages, max_age, settle_ms, max_keys = ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now_ms = math.floor(now_us / 1000)

local function text(number)
  return string.format('%.0f', number)
end

-- The id of this run of the server: another one after a restart, and after another server has taken over.
local function server_run()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end

local held = redis.call('HMGET', life, 'epoch', 'first', 'latest', 'run', 'settle_until')
local epoch, first, latest = held[1], tonumber(held[2] or 0), tonumber(held[3] or 0)
local run, settle_until = held[4], tonumber(held[5] or 0)

-- Whether messages that the caller has seen are missing, or others have their numbers.
local function has_lost_messages()
  if seen_epoch == '' then return false end
  if seen_epoch ~= epoch then return seen_latest >= first end
  if seen_latest > latest then return true end
  if seen_ms == '0' then return false end
  local entry = redis.call('XRANGE', messages, text(seen_latest), text(seen_latest))[1]
  return entry ~= nil and entry[2][2] ~= seen_ms
end

if not epoch or has_lost_messages() then
  epoch = new_epoch
  -- At least one number is left out, so that a reader always notices the new epoch.
  first = math.max(now_us + 1, latest + 2, seen_latest + 2)
  if first_number > 0 and seen_epoch == '' and not held[1] then first = first_number end
  latest, run, settle_until = first - 1, server_run(), 0
  redis.call('DEL', messages)
  redis.call('HSET', life, 'epoch', epoch, 'first', text(first), 'latest', text(latest), 'run', run, 'settle_until', 0)
elseif run ~= server_run() then
  -- This copy may be an old one. Before a number is used, nodes that have seen more get the time to say so.
  settle_until = now_ms + settle_ms
  redis.call('HSET', life, 'run', server_run(), 'settle_until', text(settle_until))
end

-- Receipts expire by themselves, so they are counted in hashes, one for each eighth of their time, that do, too.
local slice_ms = math.max(1, math.ceil(tonumber(max_age) / 8))
local slice = math.floor(now_ms / slice_ms)

-- How many receipts an owner has, or how many places are taken: each receipt takes one, and each owner in a slice.
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

local results = {}
local next_argument, stored = 10, false
if now_ms >= settle_until then
  for index = 4, #KEYS do
    local fingerprint, keep_ms = ARGV[next_argument], ARGV[next_argument + 1]
    local owner, count = ARGV[next_argument + 2], tonumber(ARGV[next_argument + 3])
    local receipt, outcome = redis.call('GET', KEYS[index]), 0
    if not receipt and owner ~= '' and not has_room(owner) then
      receipt, outcome = text((slice + 1) * slice_ms - now_ms), 2
    elseif not receipt then
      receipt = table.concat({text(latest + 1), text(count), text(now_ms), epoch, fingerprint}, ' ')
      outcome, stored = 1, true
      for offset = 1, count do
        latest = latest + 1
        redis.call('XADD', messages, 'MAXLEN', '~', max_messages, text(latest) .. '-0',
          'ms', text(now_ms), 'draft', ARGV[next_argument + 3 + offset])
      end
      redis.call('SET', KEYS[index], receipt, 'PX', keep_ms)
      if owner ~= '' then
        add_to('')
        if add_to(owner) == 1 then add_to('') end
        redis.call('PEXPIRE', KEYS[3] .. text(slice), 10 * slice_ms)
      end
    end
    results[#results + 1] = outcome
    results[#results + 1] = receipt
    next_argument = next_argument + 4 + count
  end
end
if stored then
  redis.call('HSET', life, 'latest', text(latest))
  redis.call('PEXPIRE', messages, max_age)
end

-- A damaged stream may have holes: the caller continues after the one that follows what it has seen.
local start = seen_epoch == epoch and text(seen_latest + 1) or '-'
local oldest = redis.call('XRANGE', messages, start, '+', 'COUNT', 1)[1]
return {
  now_ms >= settle_until and 'ok' or 'settling', epoch, text(first),
  oldest and string.match(oldest[1], '^%d+') or text(latest + 1), text(latest), text(now_ms), unpack(results)
}
