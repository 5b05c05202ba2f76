-- Stores jobs that need nothing but a place in one list: the common case, without the steps of other jobs. Stands
-- alone.
--
-- KEYS: the prefix of Hoist's own keys
-- ARGV: broker database, result database ('' when it is the same), prefix of result keys, list, the record that all
--       jobs share, then the ids of all jobs, then their envelopes
-- Returns 1 when all are enqueued; nil when enqueue.lua must do it, and then nothing was stored: a queue has a cap or
-- there are limits, or an id is known.
-- Atomic, so that an id is never taken twice, and a job is never recorded without being in its queue.

local P = KEYS[1]
local result_prefix, list, record, first_id = ARGV[3], ARGV[4], ARGV[5], 6
local count = (#ARGV - first_id + 1) / 2
local first_envelope = first_id + count
-- Lua passes a limited number of arguments at once.
local slice = 2000

-- The first job's record is an obstacle too: a producer that enqueues known ids mostly repeats a whole call.
local obstacles = { P .. 'caps', P .. 'limits', P .. 'job:' .. ARGV[first_id] }
local results = ARGV[2] == '' and obstacles or {}
for i = first_id, first_envelope - 1 do results[#results + 1] = result_prefix .. ARGV[i] end
local function is_any_there(keys)
    for first = 1, #keys, slice do
        if redis.call('EXISTS', unpack(keys, first, math.min(first + slice - 1, #keys))) > 0 then return true end
    end
    return false
end
if is_any_there(obstacles) then return nil end
if ARGV[2] ~= '' then
    redis.call('SELECT', ARGV[2])
    local has_ended = is_any_there(results)
    redis.call('SELECT', ARGV[1])
    if has_ended then return nil end
end

-- Pushes first, because that may fail: a key of another type in place of the list leaves no records behind.
for first = first_envelope, #ARGV, slice do redis.call('LPUSH', list, unpack(ARGV, first, math.min(first + slice - 1, #ARGV))) end
-- Records get no expiry, which would need a call for each: expire_records.lua gives one to records that stay.
local recorded = {}
for first = first_id, first_envelope - 1, slice do
    local keys, settings = {}, {}
    for i = first, math.min(first + slice, first_envelope) - 1 do
        local key = P .. 'job:' .. ARGV[i]
        keys[#keys + 1] = key
        settings[2 * #keys - 1], settings[2 * #keys] = key, record
    end
    local stored = redis.pcall('MSETNX', unpack(settings))
    if stored ~= 1 then
        -- An id is known, or the user lacks the permission. No client has seen what was pushed: a client that blocks on
        -- the list is served after the script.
        redis.call('LTRIM', list, count, -1)
        for _, others in ipairs(recorded) do redis.call('DEL', unpack(others)) end
        return stored ~= 0 and stored or nil
    end
    recorded[#recorded + 1] = keys
end
return 1
