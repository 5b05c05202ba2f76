-- Shared code, in front of every script except enqueue_plain.lua and claim_standing.lua, which stand alone.
--
-- KEYS[1] is the prefix of Hoist's own keys; every other key is that prefix with a suffix, or comes as an argument. In
-- a cluster all of them carry the same hash tag, so that one node holds them. On a separate server of results KEYS[1]
-- is the key of the result, and the prefix is not used.
--
-- Times are microseconds since 1970. Redis hands nil to Lua as false. See the page Keys of the documentation for every
-- key.

local P = KEYS[1]
-- How long the record of a job in a list is kept, in milliseconds: a worker that is not Hoist's may take the job
-- unseen.
local waiting_record_lifetime = 604800000

local function server_time()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

-- Makes a write that needs no memory. After it a full server accepts writes of the same script that need memory: a
-- script that makes room must not wait for room.
local function pass_full_server() redis.call('DEL', P .. 'none') end

-- The caller's time, for tests that move their own clock; else the server's time, which all workers share.
local function time_of(argument)
    if argument == '' then return server_time() end
    return tonumber(argument)
end

-- When no lease was renewed for far longer than workers take to renew one, the server stood still, not the workers:
-- workers whose lease passed meanwhile get time to come back. Not for tests, which move their own time.
local function give_time_after_stall(now)
    if ARGV[1] ~= '' then return end
    local real, interval = string.match(redis.call('GET', P .. 'pulse') or '', '^(%d+) (%d+)$')
    if not real or server_time() - tonumber(real) < math.max(2000000, 2 * tonumber(interval)) then return end
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', string.format('%.0f', now + 3000000))) do
        redis.call('ZADD', P .. 'workers', 'XX', string.format('%.0f', now + 3000000), name)
    end
    redis.call('SET', P .. 'pulse', string.format('%.0f %.0f', server_time(), tonumber(interval)))
end

-- The state in a result. Only the result's own member: the output of a task may hold the same words.
local function status_of(result) return result and string.match(result, '^{"status": ?"([^"]*)"') end

-- The worker that holds a job, dying workers included; false when no worker holds it.
local function holder_of_job(id)
    for _, set in ipairs({ redis.call('ZRANGE', P .. 'workers', 0, -1), redis.call('SMEMBERS', P .. 'dying') }) do
        for _, worker in ipairs(set) do
            if redis.call('HEXISTS', P .. 'held:' .. worker .. ':info', id) == 1 then return worker end
        end
    end
    return false
end

-- Lua passes a limited number of arguments at once. The slice has an even size: both halves of a pair go together.
local function for_slices(count, body)
    for first = 1, count, 4000 do body(first, math.min(first + 3999, count)) end
end

-- The values of many fields of a hash, false for a field that the hash does not have.
local function values_of(key, fields, first, last)
    if last < first then return {} end
    if last - first < 4000 then return redis.call('HMGET', key, unpack(fields, first, last)) end
    local values = {}
    for_slices(last - first + 1, function(i, j)
        for _, value in ipairs(redis.call('HMGET', key, unpack(fields, first + i - 1, first + j - 1))) do values[#values + 1] = value end
    end)
    return values
end

local function whole(number) return string.format('%.0f', number) end

-- Results may live in another database of the same server. It stays selected: the caller selects its own again if
-- needed.
local function in_database(number, body)
    if number == '' then return body() end
    redis.call('SELECT', number)
    return body()
end

-- Stores a result as Celery does, for `seconds` ('0' for ever), and publishes it to the programs that wait for it.
local function put_result(key, seconds, result)
    if seconds == '0' then redis.call('SET', key, result) else redis.call('SETEX', key, seconds, result) end
    redis.call('PUBLISH', key, result)
end

-- A worker's jobs are in two hashes: their elements, and the facts of each delivery: token, time of claim, list and
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

-- A record begins with a letter: p for plain, x for a record that must be decoded (it holds a unique key), c for
-- cancelled.
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

local function is_utf8(text)
    if not string.find(text, '[\128-\255]') then return true end
    local rest = string.gsub(text, '[\194-\223][\128-\191]', '')
    rest = string.gsub(rest, '[\224-\239][\128-\191][\128-\191]', '')
    rest = string.gsub(rest, '[\240-\244][\128-\191][\128-\191][\128-\191]', '')
    return not string.find(rest, '[\128-\255]')
end

-- Whether these bytes are UTF-8, and no longer than a name or an id may be.
local function is_text(text) return #text <= 1024 and is_utf8(text) end

-- Gives back the permits of a job, see limits.lua, and has the scopes looked at again that lines wait for. A job that
-- goes back to its queue keeps its place at the head of an ordered partition.
-- Returns whether any line waits for a permit.
local function release_permits(id, goes_back)
    local value = redis.call('HGET', P .. 'permits', id)
    if not value then return false end
    local kept, has_waiting = {}, false
    for _, permit in ipairs(cjson.decode(value)) do
        local scope, is_ordered = permit[1], permit[2]
        if goes_back and is_ordered then
            kept[#kept + 1] = permit
        else
            redis.call('ZREM', P .. 'active:' .. scope, id)
            for _, queue in ipairs(redis.call('SMEMBERS', P .. 'flow')) do
                if redis.call('ZSCORE', P .. 'waits:' .. queue, scope) then
                    redis.call('ZADD', P .. 'waits:' .. queue, '0', scope)
                    has_waiting = true
                end
            end
        end
    end
    if #kept > 0 then
        redis.call('HSET', P .. 'permits', id, cjson.encode(kept))
    else
        redis.call('HDEL', P .. 'permits', id)
    end
    return has_waiting
end

local function is_sound(message)
    local headers, properties = message.headers, message.properties
    local function is_time(value) return value == nil or value == cjson.null or type(value) == 'string' end
    return type(headers) == 'table' and type(properties) == 'table' and type(message['content-type']) == 'string'
        and type(message.body) == 'string' and is_time(headers.eta) and is_time(headers.expires)
end

local function parsed(element)
    local sound, message = pcall(cjson.decode, element)
    return sound and type(message) == 'table' and type(message.headers) == 'table' and message
end

-- Rejects what cjson accepts and every other parser rejects: control characters in strings, and malformed numbers.
local function is_strict(element)
    local plain = string.gsub(element, '\\.', '')
    for text in string.gmatch(plain, '"([^"]*)"') do
        if string.find(text, '[%z\1-\31]') then return false end
    end
    for word in string.gmatch(string.gsub(plain, '"[^"]*"', ''), '[^%[%]{}:,%s]+') do
        local is_number = string.find(word, '^-?%d+$') or string.find(word, '^-?%d+%.%d+$')
            or string.find(word, '^-?%d+%.?%d*[eE][+-]?%d+$')
        if word ~= 'true' and word ~= 'false' and word ~= 'null' and (not is_number or string.find(word, '^-?0%d')) then return false end
    end
    return true
end

-- Whether an element with a job name that no worker here knows is a valid message.
local function is_message(element)
    local message = parsed(element)
    return message and is_sound(message) and is_utf8(element) and is_strict(element)
end

-- A record made from the message of a job whose own record is gone: it holds the unique key; '' without one.
local function record_of(element)
    if not string.find(element, '"unique":', 1, true) then return '' end
    local message = parsed(element)
    local unique = message and type(message.headers.hoist) == 'table' and message.headers.hoist.unique
    if type(unique) ~= 'table' or type(unique.key) ~= 'string' or type(unique.scope) ~= 'table' then return '' end
    return 'x' .. cjson.encode({ u = { unique.key, unique.scope.kind, tonumber(unique.scope.seconds) or 0 } })
end

-- Microseconds since 1970 of an ISO 8601 time; nil when the text is none.
local function microseconds_of(text)
    if type(text) ~= 'string' then return nil end
    local year, month, day, hour, minute, second, fraction, zone = string.match(text,
        '^"?(%d%d%d%d)-(%d%d)-(%d%d)[T ](%d%d):(%d%d):(%d%d)%.?(%d*)([^"]*)')
    if not year then return nil end
    year, month = tonumber(year), tonumber(month)
    -- Days since 1970, with years that begin in March.
    if month <= 2 then year, month = year - 1, month + 12 end
    local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
        + math.floor((153 * (month - 3) + 2) / 5) + tonumber(day) - 1 - 719468
    local seconds = ((days * 24 + tonumber(hour)) * 60 + tonumber(minute)) * 60 + tonumber(second)
    local sign, hours, minutes = string.match(zone, '^([+-])(%d%d):?(%d?%d?)$')
    if sign then
        seconds = seconds - (sign == '+' and 1 or -1) * (tonumber(hours) * 60 + (tonumber(minutes) or 0)) * 60
    elseif zone ~= '' and zone ~= 'Z' then
        return nil
    end
    return seconds * 1000000 + tonumber(string.sub(fraction .. '000000', 1, 6))
end

-- Name, id and retries of the element of a queue, whether a time to start or to expire must be looked at, and these two
-- times; nil when the element cannot be read.
-- Elements that Hoist wrote are read by their fixed beginning, all others as JSON. Most elements of Hoist's say nothing
-- but name and id, and are found by plain comparison: patterns look at each letter many times.
local function describe(element)
    if string.sub(element, 1, 35) == '{"headers":{"lang":"swift","task":"' then
        local end_of_name = string.find(element, '","id":"', 36, true)
        local end_of_id = end_of_name and string.find(element, '","retries":0,"eta":null,"expires":null', end_of_name + 8, true)
        if end_of_id then
            local name, id = string.sub(element, 36, end_of_name - 1), string.sub(element, end_of_name + 8, end_of_id - 1)
            if #id <= 1024 and string.match(id, '^[%w%-]+$') and not string.find(name, '"', 1, true) and not string.find(name, '\\', 1, true) then
                return name, id, 0, false, 'null', 'null'
            end
        end
    end
    local name, id, retries, eta, expires = string.match(element,
        '^{"headers":{"lang":"swift","task":"([^"\\]*)","id":"([^"\\]*)","retries":(%d+),"eta":([^,]*),"expires":([^,}]*)')
    if name then
        if not is_text(id) then return nil end
        return name, id, tonumber(retries), eta ~= 'null' or expires ~= 'null', eta, expires
    end
    local message = parsed(element)
    if not message then return nil end
    local headers = message.headers
    if type(headers.task) ~= 'string' or type(headers.id) ~= 'string' or headers.task == '' or headers.id == '' then return nil end
    if not is_text(headers.id) or not is_text(headers.task) then return nil end
    return headers.task, headers.id, tonumber(headers.retries) or 0,
        (headers.eta ~= nil and headers.eta ~= cjson.null) or (headers.expires ~= nil and headers.expires ~= cjson.null),
        headers.eta, headers.expires
end
