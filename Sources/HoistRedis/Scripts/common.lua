-- Shared by all scripts, in front of each of them.
--
-- KEYS[1] is the prefix of Hoist's own keys; every other key is that prefix with a suffix, or comes as an argument. In a cluster all of
-- them carry the same hash tag, so that one node holds them.
--
-- Times are microseconds since 1970. Redis hands nil to Lua as false. See the page Keys of the documentation for every key.

local P = KEYS[1]

local function server_time()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

-- The caller's time, for tests that move their own; else the server's, which all workers share.
local function time_of(argument)
    if argument == '' then return server_time() end
    return tonumber(argument)
end

local function whole(number) return string.format('%.0f', number) end

-- Results may live in another database of the same server. Whoever goes on after it goes back by himself.
local function in_database(number, body)
    if number == '' then return body() end
    redis.call('SELECT', number)
    return body()
end

-- What a worker holds is two hashes: the elements of its jobs, and what is to be known of each delivery: token, time of claim, list and
-- record, a line each. A script that settles a job need not touch the element, which may be large.
local function info_of(token, began, list, record)
    return token .. '\n' .. began .. '\n' .. list .. '\n' .. record
end

local function has_token(info, token) return info and string.sub(info, 1, #token + 1) == token .. '\n' end

local function record_in(info)
    local line = string.find(info, '\n', 1, true)
    line = string.find(info, '\n', line + 1, true)
    line = string.find(info, '\n', line + 1, true)
    return string.sub(info, line + 1)
end

-- A record begins with a letter: p for plain, x for one that must be looked into (a unique key, an earlier attempt), c for cancelled.
local function decoded_record(record)
    if not record or string.byte(record, 1) ~= 120 then return nil end
    local sound, value = pcall(cjson.decode, string.sub(record, 2))
    if sound and type(value) == 'table' then return value end
    return nil
end

-- Gives up the unique key of a job, where the key's scope says so and the job still holds it.
local function release_key(record, id, starting, now)
    local job = decoded_record(record)
    if not job or not job.u then return end
    local key = P .. 'unique:' .. job.u[1]
    local scope = job.u[2]
    local holder = redis.call('GET', key)
    if not holder or string.sub(holder, string.find(holder, '\n', 1, true) + 1) ~= id then return end
    if scope == 'waiting' or (scope == 'unfinished' and not starting) then
        redis.call('DEL', key)
    elseif scope == 'remembered' and not starting then
        -- Kept by the script's time, which a test moves; Redis' own expiry only keeps it from staying for ever.
        redis.call('SET', P .. 'unique-until:' .. job.u[1], whole(now + job.u[3] * 1000000), 'PX', math.ceil(job.u[3] * 1000) + 60000)
        redis.call('PEXPIRE', key, math.ceil(job.u[3] * 1000) + 60000)
    end
end

-- Name, id, retries of the element of a queue, and whether a time to start or to expire must be looked at; nil when it cannot be read.
-- What Hoist wrote is read by its fixed beginning, everything else as JSON.
local function describe(element)
    local name, id, retries, eta, expires = string.match(element,
        '^{"headers":{"lang":"swift","task":"([^"\\]*)","id":"([^"\\]*)","retries":(%d+),"eta":([^,]*),"expires":([^,}]*)')
    if name then return name, id, tonumber(retries), eta ~= 'null' or expires ~= 'null' end
    local sound, message = pcall(cjson.decode, element)
    if not sound or type(message) ~= 'table' or type(message.headers) ~= 'table' then return nil end
    local headers = message.headers
    if type(headers.task) ~= 'string' or type(headers.id) ~= 'string' or headers.task == '' or headers.id == '' then return nil end
    return headers.task, headers.id, tonumber(headers.retries) or 0,
        (headers.eta ~= nil and headers.eta ~= cjson.null) or (headers.expires ~= nil and headers.expires ~= cjson.null)
end
