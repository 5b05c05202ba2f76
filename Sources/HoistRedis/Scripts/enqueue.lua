-- Stores jobs that need nothing but a place in one list: the common case, without anything that the others need. Stands alone.
--
-- KEYS: the prefix of Hoist's own keys
-- ARGV: broker database, result database ('' when it is the same), prefix of result keys, milliseconds that the record of a waiting job is
--       kept, list, number of jobs, then of all of them in turn: ids, records, envelopes
-- Returns 1 when all are enqueued; nil when this is for publish.lua, and then nothing was stored: queues have caps or jobs limits, or an id
-- is known.
-- Atomic, so that an id is never taken twice, and a job is never recorded without being in its queue.

local P = KEYS[1]
local result_prefix, list, count = ARGV[3], ARGV[5], tonumber(ARGV[6])
-- Lua hands over only so many arguments at once.
local slice = 2000

local records, known, results = {}, { P .. 'caps', P .. 'limits' }, {}
local both = ARGV[2] == '' and known or results
for i = 1, count do
    records[i] = P .. 'job:' .. ARGV[6 + i]
    known[#known + 1] = records[i]
    both[#both + 1] = result_prefix .. ARGV[6 + i]
end
local function is_any_there(keys)
    for first = 1, #keys, slice do
        if redis.call('EXISTS', unpack(keys, first, math.min(first + slice - 1, #keys))) > 0 then return true end
    end
    return false
end
if is_any_there(known) then return nil end
if ARGV[2] ~= '' then
    redis.call('SELECT', ARGV[2])
    local is_known = is_any_there(results)
    redis.call('SELECT', ARGV[1])
    if is_known then return nil end
end

-- First, for it may fail: a key of another kind in place of the list leaves no records behind.
local envelopes = 7 + 2 * count
for first = envelopes, #ARGV, slice do redis.call('LPUSH', list, unpack(ARGV, first, math.min(first + slice - 1, #ARGV))) end
for i = 1, count do redis.call('SET', records[i], ARGV[6 + count + i], 'PX', ARGV[4]) end
return 1
