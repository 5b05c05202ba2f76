-- Removes the record, the kept message and the result of a job that has ended.
--
-- ARGV: result database ('' when it is the same), broker database, prefix of result keys, id
-- Returns 1, or 0 when nothing was kept or the job has not ended.
-- Atomic, so that a job which is requeued meanwhile loses nothing.

local id = ARGV[4]
local record = redis.call('GET', P .. 'job:' .. id)
local found = 0
if record then
    local sound, job = pcall(cjson.decode, string.sub(record, 2))
    if not sound or type(job) ~= 'table' then return 0 end
    -- Its element may still be in the list.
    if string.byte(record, 1) == 99 then return 0 end
    local kind = job.s == 'failed' and 'dead' or (job.s == 'cancelled' or job.s == 'expired') and 'stopped'
    if not kind then return 0 end
    redis.call('ZREM', P .. kind .. ':' .. job.q, id)
    redis.call('HDEL', P .. kind .. ':' .. job.q .. ':jobs', id)
    redis.call('DEL', P .. 'job:' .. id)
    found = 1
end
return in_database(ARGV[1], function()
    local key = ARGV[3] .. id
    local result = redis.call('GET', key)
    local status = status_of(result)
    if found == 1 or status == 'SUCCESS' or status == 'FAILURE' or status == 'REVOKED' then
        if redis.call('DEL', key) == 1 then found = 1 end
    end
    return found
end)
