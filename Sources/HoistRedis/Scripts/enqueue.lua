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
local checked = {}
local function demand_once(key, kind)
    if not checked[key] then demand(key, kind) end
    checked[key] = true
end
for i = 0, count - 1 do
    local base = first_job + i * 8
    demand_once(ARGV[base + 1], 'list')
    if ARGV[base + 5] ~= '' then
        demand_once(P .. 'delayed:' .. ARGV[base + 2], 'zset')
        demand_once(P .. 'delayed:' .. ARGV[base + 2] .. ':jobs', 'hash')
    end
    if ARGV[base + 6] ~= '' then demand_once(P .. 'unique:' .. ARGV[base + 6], 'string') end
end
results_at = { database = ARGV[3], broker = ARGV[2], prefix = ARGV[4] }

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
            for list in string.gmatch(names, '[^\n]+') do size = size + redis.call('LLEN', list) end
            size = size + (tonumber(redis.call('HGET', P .. 'in-lines', queue)) or 0)
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
            -- A result that only says that its job is to come is none.
            local result = redis.call('GET', result_keys[i])
            if result and status_of(result) ~= 'PENDING' then known[string.sub(result_keys[i], #ARGV[4] + 1)] = true end
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

local nearer = false
for i = 0, count - 1 do
    local base = first_job - 1 + i * 8
    local id, target, queue, record = ARGV[base + 1], ARGV[base + 2], ARGV[base + 3], ARGV[base + 4]
    local due, unique = ARGV[base + 6], ARGV[base + 7]
    local outcome = 1
    if known[id] or redis.call('EXISTS', P .. 'job:' .. id) == 1 then
        outcome = 0
    elseif unique ~= '' then
        local holder = holder_of_key(unique, now)
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
        local envelope = ARGV[base + 5]
        if place_job(id, target, queue, record, envelope, due, now) then nearer = true end
        if cancels and (due == '' or tonumber(due) <= now) then cancel_older(queue, envelope) end
    end
    results[#results + 1] = outcome
end
if nearer then redis.call('PUBLISH', P .. 'work', 'due') end
return results
