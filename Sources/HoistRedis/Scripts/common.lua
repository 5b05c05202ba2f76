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

-- A failed write is not undone. So a script looks at the keys it is about to write before it writes the first of them.
local function demand(key, kind)
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
        error({ err = 'WRONGTYPE the key ' .. key .. ' holds a ' .. found .. ' and not a ' .. kind })
    end
end

-- When no lease was renewed for far longer than workers take to renew one, the server stood still or could not be
-- reached, and workers whose lease passed meanwhile are not dead: each gets its own lease once more. Not for tests,
-- which move their own time.
local function give_time_after_stall(now)
    if ARGV[1] ~= '' then return end
    local real, interval = string.match(redis.call('GET', P .. 'pulse') or '', '^(%d+) (%d+)$')
    if not real or server_time() - tonumber(real) < math.max(2000000, 2 * tonumber(interval)) then return end
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', string.format('%.0f', now + 3000000))) do
        local lease = tonumber(redis.call('HGET', P .. 'leases', name) or '') or 0
        redis.call('ZADD', P .. 'workers', 'XX', string.format('%.0f', now + math.max(3000000, lease)), name)
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

-- When Hoist last put a job in front of a list: what was known of the list before holds no longer then.
local function front_of(list) return redis.call('GET', P .. 'front:' .. list) or '' end
local function push_in_front(list, element)
    local time = redis.call('TIME')
    redis.call('SET', P .. 'front:' .. list, time[1] .. '.' .. time[2], 'EX', 300)
    redis.call('RPUSH', list, element)
end

-- How many jobs of a queue are in lines is counted, for a queue may have very many lines.
local function count_in_line(queue, by)
    if by ~= 0 and redis.call('HINCRBY', P .. 'in-lines', queue, by) <= 0 then redis.call('HDEL', P .. 'in-lines', queue) end
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
    local holder = redis.pcall('GET', key)
    if type(holder) ~= 'string' or string.sub(holder, string.find(holder, '\n', 1, true) + 1) ~= id then return end
    if scope == 'waiting' or (scope == 'unfinished' and not starting) then
        redis.call('DEL', key)
    elseif scope == 'remembered' and not starting then
        -- Kept by the script's time, which a test moves; Redis' own expiry only keeps it from staying for ever.
        redis.call('SET', P .. 'unique-until:' .. job.u[1], whole(now + job.u[3] * 1000000), 'PX', math.ceil(job.u[3] * 1000) + 60000)
        redis.call('PEXPIRE', key, math.ceil(job.u[3] * 1000) + 60000)
    end
end

-- Whether these bytes are UTF-8 in the strict sense of Unicode: no surrogates, no overlong forms, nothing beyond
-- U+10FFFF. Swift replaces anything else, and would never find the job again.
local utf8_sequences = {
    '[\194-\223][\128-\191]', '\224[\160-\191][\128-\191]', '\237[\128-\159][\128-\191]',
    '[\225-\236\238\239][\128-\191][\128-\191]', '\240[\144-\191][\128-\191][\128-\191]',
    '[\241-\243][\128-\191][\128-\191][\128-\191]', '\244[\128-\143][\128-\191][\128-\191]',
}
local function is_utf8(text)
    if not string.find(text, '[\128-\255]') then return true end
    -- By something, so that what is left of two sequences does not make a third.
    for _, sequence in ipairs(utf8_sequences) do text = string.gsub(text, sequence, '?') end
    return not string.find(text, '[\128-\255]')
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

local function parsed(element)
    local sound, message = pcall(cjson.decode, element)
    return sound and type(message) == 'table' and type(message.headers) == 'table' and message
end

-- The first bytes of a text in base64.
local function from_base64(text, count)
    local digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
    local bytes = {}
    for a, b, c, d in string.gmatch(string.sub(text, 1, count), '([%w+/])([%w+/])([%w+/])([%w+/])') do
        local function value(digit) return string.find(digits, digit, 1, true) - 1 end
        local number = ((value(a) * 64 + value(b)) * 64 + value(c)) * 64 + value(d)
        bytes[#bytes + 1] = string.char(math.floor(number / 65536), math.floor(number / 256) % 256, number % 256)
    end
    return table.concat(bytes)
end

-- Whether an element has the form that Hoist writes.
local function is_ours(element) return string.sub(element, 1, 35) == '{"headers":{"lang":"swift","task":"' end

-- The name of the job in an element, whoever wrote it and in whatever form; nil when the element has none that can be
-- made out. Cheap also for a large element, and no proof that the element can be read.
local function name_in(element)
    local _, headers = string.find(element, '"headers": {', 1, true)
    if not headers then _, headers = string.find(element, '"headers":{', 1, true) end
    if headers then
        local before, name = string.match(string.sub(element, headers + 1, headers + 2000), '^([^{}]-)"task": ?"([^"\\]*)"')
        if before and not string.find(before, '\\', 1, true) then return name ~= '' and name or nil end
    end
    local message = parsed(element)
    if not message then return nil end
    if type(message.headers.task) == 'string' and message.headers.task ~= '' then return message.headers.task end
    -- Protocol 1 has the name in the body.
    if message.headers.task ~= nil or type(message.body) ~= 'string' then return nil end
    local body = message.body
    if type(message.properties) == 'table' and message.properties.body_encoding == 'base64' then body = from_base64(body, 2048) end
    return string.match(body, '^%s*{%s*"task": ?"([^"\\]+)"')
end

-- Whether a message under the id of a job that has succeeded is a copy of it: a message that Hoist published, or one
-- that its broker delivers again. Any other one was put there on purpose, as Celery sees it.
local function is_copy(element)
    return is_ours(element) or string.find(element, '"hoist":{', 1, true) ~= nil
        or string.find(element, '"redelivered": ?true') ~= nil
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
    if is_ours(element) then
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
