-- Places a job in its queue: shared by the scripts that enqueue jobs and by the one that settles them, whose
-- settlements may be followed by further jobs. In front of those scripts, after limits.lua.

-- Where results are: set by the script before the first job is placed.
local results_at = { database = '', broker = '', prefix = '' }

local function result_of(id)
    local result = in_database(results_at.database, function() return redis.call('GET', results_at.prefix .. id) end)
    if results_at.database ~= '' then redis.call('SELECT', results_at.broker) end
    return result
end

-- Whether a key can hold the messages of a queue. Asked before anything is written, for a failed write is not undone.
local function can_hold_messages(key)
    local kind = redis.call('TYPE', key).ok
    return kind == 'list' or kind == 'none', kind
end

-- Whether a job can be placed: at once into the list, or later among the delayed ones.
local function can_place(list, queue, due)
    if not can_hold_messages(list) then return false end
    if due == '' then return true end
    local delayed = redis.call('TYPE', P .. 'delayed:' .. queue).ok
    local jobs = redis.call('TYPE', P .. 'delayed:' .. queue .. ':jobs').ok
    return (delayed == 'zset' or delayed == 'none') and (jobs == 'hash' or jobs == 'none')
end

-- The id of the job that holds a unique key now; false when no job holds it.
local function holder_of_key(name, now)
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
    local result = result_of(holder)
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

-- Puts a message into its list, or among the delayed ones, and records the job. The caller has found out that the id is
-- new and the key free.
-- Returns whether the job is the first of its queue that falls due.
local function place_job(id, list, queue, record, envelope, due, now)
    if due ~= '' and tonumber(due) > now then
        redis.call('HSET', P .. 'delayed:' .. queue .. ':jobs', id, list .. '\n' .. envelope)
        redis.call('ZADD', P .. 'delayed:' .. queue, due, id)
        redis.call('SET', P .. 'job:' .. id, record)
        return redis.call('ZRANGE', P .. 'delayed:' .. queue, 0, 0)[1] == id
    end
    redis.call('SET', P .. 'job:' .. id, record, 'PX', waiting_record_lifetime)
    redis.call('LPUSH', list, envelope)
    return false
end
