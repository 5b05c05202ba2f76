-- Stores jobs in their queues, or none when a queue has no room.
--
-- ARGV: now, broker database, result database ('' when it is the same), prefix of result keys, then for each job eight:
--       id, list, queue, record, envelope, due ('' for now), unique key ('' for none), end of the key's window ('' for
--       none)
-- Returns for each job, in that order: 1 when it is enqueued; 0 when its id is known; the id of the job that holds its
-- unique key. Or {-1, queue} when that queue is full, and then nothing was stored.
-- Atomic, so that an id or a unique key is never taken twice, and a job is never recorded without being in its queue.

local now = time_of(ARGV[1])
local first_job = 5
local count = (#ARGV - first_job + 1) / 8

-- Checked before anything is written: a key of another type in place of a list would leave jobs recorded that are in no
-- queue.
local function check_list(key)
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'list' and kind ~= 'none' then error({ err = 'WRONGTYPE the key of a queue holds a ' .. kind }) end
end
for i = 0, count - 1 do check_list(ARGV[first_job + i * 8 + 1]) end

if redis.call('EXISTS', P .. 'caps') == 1 then
    local asked = {}
    for i = 0, count - 1 do
        local queue = ARGV[first_job + i * 8 + 2]
        asked[queue] = (asked[queue] or 0) + 1
    end
    for queue, number in pairs(asked) do
        local cap = redis.call('HGET', P .. 'caps', queue)
        if cap then
            local cap_size, names = string.match(cap, '^(%d+)\n(.*)$')
            local size = redis.call('ZCARD', P .. 'delayed:' .. queue)
            for list in string.gmatch(names, '[^\n]+') do
                size = size + redis.call('LLEN', list)
                for _, line in ipairs(redis.call('SMEMBERS', P .. 'lines:' .. queue)) do size = size + redis.call('LLEN', line_key(list, line)) end
            end
            if size + number > tonumber(cap_size) then
                -- The turn that makes room publishes `room`.
                redis.call('SADD', P .. 'full', queue)
                return { -1, queue }
            end
        end
    end
end

-- An id that has a result is known. Mostly no id has one, so one call asks for all of them.
local known, result_keys = {}, {}
for i = 0, count - 1 do result_keys[#result_keys + 1] = ARGV[4] .. ARGV[first_job + i * 8] end
in_database(ARGV[3], function()
    for_slices(#result_keys, function(first, last)
        if redis.call('EXISTS', unpack(result_keys, first, last)) == 0 then return end
        for i = first, last do
            if redis.call('EXISTS', result_keys[i]) == 1 then known[string.sub(result_keys[i], #ARGV[4] + 1)] = true end
        end
    end)
end)
if ARGV[3] ~= '' then redis.call('SELECT', ARGV[2]) end

local cancels = false
if redis.call('EXISTS', P .. 'limits') == 1 then
    know_limits()
    cancels = has_cancelling_limits()
end
local results = {}

-- The id of the job that holds a unique key now; false when no job holds it.
local function holder_of(name)
    local key = P .. 'unique:' .. name
    local value = redis.call('GET', key)
    if not value then return false end
    local scope, holder = string.match(value, '^([^\n]*)\n(.*)$')
    local window = redis.call('GET', P .. 'unique-until:' .. name)
    if window then
        if tonumber(window) > now then return holder end
        redis.call('DEL', key, P .. 'unique-until:' .. name)
        return false
    end
    if scope == 'window' or holder_of_job(holder) then return holder end
    local record = redis.call('GET', P .. 'job:' .. holder)
    local job = decoded_record(record)
    local result = in_database(ARGV[3], function() return redis.call('GET', ARGV[4] .. holder) end)
    if ARGV[3] ~= '' then redis.call('SELECT', ARGV[2]) end
    local status = status_of(result)
    local has_ended = status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED'
    -- The holder expired and no worker has noticed yet; or a worker that is not Hoist's has finished it, and knew
    -- nothing of the key; or nothing is left of it.
    if (job and job.x and job.x <= now) or has_ended or (not record and not result) then
        redis.call('DEL', key)
        return false
    end
    return holder
end

local nearer = false
for i = 0, count - 1 do
    local base = first_job - 1 + i * 8
    local id, target, queue, record = ARGV[base + 1], ARGV[base + 2], ARGV[base + 3], ARGV[base + 4]
    local due, unique = ARGV[base + 6], ARGV[base + 7]
    local is_later = due ~= '' and tonumber(due) > now
    local outcome = 1
    if known[id] or redis.call('EXISTS', P .. 'job:' .. id) == 1 then
        outcome = 0
    elseif unique ~= '' then
        local holder = holder_of(unique)
        if holder then outcome = holder end
    end
    if outcome == 1 then
        if unique ~= '' then
            local job = decoded_record(record)
            redis.call('SET', P .. 'unique:' .. unique, job.u[2] .. '\n' .. id)
            if ARGV[base + 8] ~= '' then
                local left = math.ceil((tonumber(ARGV[base + 8]) - now) / 1000) + 60000
                redis.call('SET', P .. 'unique-until:' .. unique, ARGV[base + 8], 'PX', left)
                redis.call('PEXPIRE', P .. 'unique:' .. unique, left)
            end
        end
        if is_later then
            redis.call('SET', P .. 'job:' .. id, record)
            redis.call('ZADD', P .. 'delayed:' .. queue, due, id)
            redis.call('HSET', P .. 'delayed:' .. queue .. ':jobs', id, target .. '\n' .. ARGV[base + 5])
            if redis.call('ZRANGE', P .. 'delayed:' .. queue, 0, 0)[1] == id then nearer = true end
        else
            redis.call('SET', P .. 'job:' .. id, record, 'PX', waiting_record_lifetime)
            redis.call('LPUSH', target, ARGV[base + 5])
            if cancels then cancel_older(queue, ARGV[base + 5]) end
        end
    end
    results[#results + 1] = outcome
end
if nearer then redis.call('PUBLISH', P .. 'work', 'due') end
return results
