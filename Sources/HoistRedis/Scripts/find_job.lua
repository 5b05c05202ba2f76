-- Finds a job, wherever it is.
--
-- ARGV: id, result database ('' when it is the same), broker database, prefix of result keys
-- Returns {worker that holds it ('' for none), description of that worker, facts of the delivery, whether it is to be
--          cancelled, its record ('' for none), its due time ('' when it is not delayed), its message where it is held,
--          delayed or kept, its result ('' for none)}
-- Atomic, so that a job on its way from one place to the next is seen in one of them.

local id = ARGV[1]
local worker, presence, delivery, cancelled, message = '', '', '', 0, ''
local names = redis.call('ZRANGE', P .. 'workers', 0, -1)
for _, name in ipairs(redis.call('SMEMBERS', P .. 'dying')) do names[#names + 1] = name end
for _, name in ipairs(names) do
    local value = redis.call('HGET', P .. 'held:' .. name .. ':info', id)
    if value then
        worker, delivery = name, value
        message = redis.call('HGET', P .. 'held:' .. name, id) or ''
        presence = redis.call('GET', P .. 'worker:' .. name) or ''
        cancelled = redis.call('SISMEMBER', P .. 'cancel:' .. name, id)
    end
end
local record = redis.call('GET', P .. 'job:' .. id) or ''
local due = ''
if delivery == '' and record ~= '' then
    local sound, job = pcall(cjson.decode, string.sub(record, 2))
    if sound and type(job) == 'table' and type(job.q) == 'string' then
        due = redis.call('ZSCORE', P .. 'delayed:' .. job.q, id) or ''
        if due ~= '' then
            message = redis.call('HGET', P .. 'delayed:' .. job.q .. ':jobs', id) or ''
        elseif job.s == 'failed' then
            message = redis.call('HGET', P .. 'dead:' .. job.q .. ':jobs', id) or ''
        elseif job.s == 'cancelled' or job.s == 'expired' then
            message = redis.call('HGET', P .. 'stopped:' .. job.q .. ':jobs', id) or ''
        end
    end
end
local result = in_database(ARGV[2], function() return redis.call('GET', ARGV[4] .. id) or '' end)
return { worker, presence, delivery, cancelled, record, due, message, result }
