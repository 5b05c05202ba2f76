-- Settles what a worker has finished, stores progress, and hands it new jobs.
--
-- ARGV: now, worker, broker database, result database ('' when it is the same), prefix of result keys, how many elements may be looked
--       at in each list, 1 to settle for a worker whose lease is over, then
--       the number of jobs that are simply done, and for each four: id, token, seconds of its result ('' for no result, 0 for ever, - to remove one), result
--       the number of other settlements, and for each ten: id, token, operation, result key ('' for no result), its seconds (0 for ever),
--       result, queue, and three that the operation needs:
--         S  the job is done                       -, -, -; as above, for a result with a key of its own
--         E  it is done and its message is kept    kind (dead, stopped), keep until, record
--         B  it goes back                          list, due ('' for now) and side (L back, R front) in one word, record; and an
--                                                  eleventh: the envelope, '' for the one that is held
--       the number of progress reports, and for each five: id, token, result key, its seconds, result
--       the number of claims, and for each: queue, free slots of the queue ('' for no limit), number of lists, the lists, number of
--         names, and for each name: the name and the number of its lane
--       the free slots of each lane
-- Returns {alive, a code for each of the other settlements (1 done, 0 refused, 2 somebody wants it cancelled: settle it so), ids of refused
--          progress and of jobs refused as done,
--          ids to cancel, workers whose lease is over, next due time ('' for none), whether there is more, whether elements were left
--          that nobody here can take, the numbers of lists that are empty (counted through all claims), the token of the first delivery,
--          and {for each delivery six: the number of its list, id, name, retries and kind in one word (kind: n normal, t look at its
--          times, u it cannot be read), record ('' when it holds nothing of interest), envelope}, the time that it is here, what went
--          wrong with the claims ('' for nothing)}. Tokens go up by one.
-- Atomic, so that a job is at every moment in a queue, with a worker, or ended: never in none of them, never in two.

local now = time_of(ARGV[1])
local worker = ARGV[2]
local broker_db, result_db, result_prefix = ARGV[3], ARGV[4], ARGV[5]
local scan_limit = tonumber(ARGV[6])
local is_forced = ARGV[7] == '1'
local at = 8
local function next_argument()
    local value = ARGV[at]
    at = at + 1
    return value
end

-- A write that needs no memory, first: after it a server that is full lets the others pass, and its queues can drain.
redis.call('DEL', P .. 'none')
-- Before anything is changed: where the other database cannot be used, nothing may be.
if result_db ~= '' then
    redis.call('SELECT', result_db)
    redis.call('SELECT', broker_db)
end

-- Workers whose lease is over.
local dead = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(now), 'LIMIT', 0, 16)
if #dead > 0 then
    give_time_after_stall(now)
    dead = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(now), 'LIMIT', 0, 16)
end

local lease = redis.call('ZSCORE', P .. 'workers', worker)
local is_alive = is_forced or (lease and tonumber(lease) > now)
local held = P .. 'held:' .. worker
local info = P .. 'held:' .. worker .. ':info'
local cancelled = P .. 'cancel:' .. worker

local writes = {}
local function store_result(key, seconds, value, is_final)
    if key ~= '' then writes[#writes + 1] = { key, seconds, value, is_final } end
end

local function let_go(id)
    redis.call('HDEL', held, id)
    redis.call('HDEL', info, id)
end

-- What is asked for is read and checked first, then results are stored, and only then jobs are let go: an error on the way changes nothing
-- that a second call would not put right.
local any_cancelled = redis.call('EXISTS', cancelled) == 1
local lost, done = {}, {}
for _ = 1, tonumber(next_argument()) do
    local id, token, seconds, result = next_argument(), next_argument(), next_argument(), next_argument()
    local known = is_alive and redis.call('HGET', info, id)
    if has_token(known, token) then
        done[#done + 1] = { id, known }
        if seconds ~= '' then store_result(result_prefix .. id, seconds, result, true) end
    else
        lost[#lost + 1] = id
    end
end

local codes, others = {}, {}
for i = 1, tonumber(next_argument()) do
    local id, token, operation, result_key, seconds, result, queue = next_argument(), next_argument(), next_argument(),
        next_argument(), next_argument(), next_argument(), next_argument()
    local first, second, third = next_argument(), next_argument(), next_argument()
    local envelope = operation == 'B' and next_argument() or ''
    local known = is_alive and redis.call('HGET', info, id)
    if not has_token(known, token) then
        codes[i] = 0
    elseif operation == 'B' and any_cancelled and redis.call('SISMEMBER', cancelled, id) == 1 then
        codes[i] = 2
    else
        codes[i] = 1
        others[#others + 1] = { id, operation, queue, first, second, third, envelope, known }
        store_result(result_key, seconds, result, operation == 'S')
    end
end

local refused = lost
for _ = 1, tonumber(next_argument()) do
    local id, token, result_key, seconds, result = next_argument(), next_argument(), next_argument(), next_argument(), next_argument()
    if not has_token(is_alive and redis.call('HGET', info, id), token) then
        refused[#refused + 1] = id
    else
        store_result(result_key, seconds, result, true)
    end
end

if #writes > 0 then
    in_database(result_db, function()
        for _, write in ipairs(writes) do
            local key, seconds, value, is_final = write[1], write[2], write[3], write[4]
            local stored = not is_final and redis.call('GET', key)
            if seconds == '-' then
                redis.call('DEL', key)
            -- A success is never written over, by whomever it was stored.
            elseif status_of(stored) ~= 'SUCCESS' then
                if seconds == '0' then redis.call('SET', key, value) else redis.call('SETEX', key, seconds, value) end
                redis.call('PUBLISH', key, value)
            end
        end
    end)
    if result_db ~= '' then redis.call('SELECT', broker_db) end
end

local made_ready = false
for _, job in ipairs(done) do
    local id, known = job[1], job[2]
    let_go(id)
    redis.call('DEL', P .. 'job:' .. id)
    if string.find(known, '"u":', 1, true) then release_key(record_in(known), id, false, now) end
    if any_cancelled then redis.call('SREM', cancelled, id) end
end
for _, job in ipairs(others) do
    local id, operation, queue, first, second, third, envelope, known = unpack(job)
    local record = record_in(known)
    local kept = operation ~= 'S' and envelope == '' and redis.call('HGET', held, id) or envelope
    let_go(id)
    redis.call('SREM', cancelled, id)
    if operation == 'S' then
        redis.call('DEL', P .. 'job:' .. id)
        release_key(record, id, false, now)
    elseif operation == 'E' then
        -- Two messages of one id may both have been given up: neither takes the place of the other.
        local name, there = id, redis.call('HGET', P .. first .. ':' .. queue .. ':jobs', id)
        if there and there ~= kept then name = id .. '#' .. string.match(known, '^%d+') end
        redis.call('SET', P .. 'job:' .. name, third, 'PX', math.max(1, math.ceil((tonumber(second) - now) / 1000)))
        redis.call('ZADD', P .. first .. ':' .. queue, second, name)
        redis.call('HSET', P .. first .. ':' .. queue .. ':jobs', name, kept)
        release_key(record, id, false, now)
    else
        local due, side = string.match(second, '^(%d*)(%u)$')
        if due ~= '' and tonumber(due) > now then
            redis.call('SET', P .. 'job:' .. id, third)
            redis.call('ZADD', P .. 'delayed:' .. queue, due, id)
            redis.call('HSET', P .. 'delayed:' .. queue .. ':jobs', id, first .. '\n' .. kept)
            -- It may be due before anything that workers wait for.
            if redis.call('ZRANGE', P .. 'delayed:' .. queue, 0, 0)[1] == id then made_ready = true end
        else
            redis.call('SET', P .. 'job:' .. id, third, 'PX', 604800000)
            redis.call(side == 'R' and 'RPUSH' or 'LPUSH', first, kept)
            made_ready = true
        end
    end
end

local deliveries, empty, token, problem = {}, {}, 0, ''
local next_due, has_more, has_strangers = nil, false, false
local claim_count = tonumber(next_argument())
if claim_count > 0 and is_alive then
    local claims, lists_before = {}, 0
    for i = 1, claim_count do
        local claim = { queue = next_argument(), free = tonumber(next_argument()) or math.huge, lists = {}, first = lists_before, lanes = {} }
        for j = 1, tonumber(next_argument()) do claim.lists[j] = next_argument() end
        lists_before = lists_before + #claim.lists
        for _ = 1, tonumber(next_argument()) do
            local name = next_argument()
            claim.lanes[name] = tonumber(next_argument())
        end
        claims[i] = claim
    end
    local lanes = {}
    while at <= #ARGV do lanes[#lanes + 1] = tonumber(next_argument()) end
    local has_paused = redis.call('EXISTS', P .. 'paused') == 1
    local taken, in_hand = {}, {}

    local function free_of(claim)
        local sum, seen = 0, {}
        for _, lane in pairs(claim.lanes) do
            if not seen[lane] then
                seen[lane] = true
                sum = sum + lanes[lane]
            end
        end
        return math.min(sum, claim.free)
    end

    -- Takes one element off the hands of a list, or says that it must stay.
    local function take(claim, number, list, element)
        local name, id, retries, timed = describe(element)
        local kind = timed and 't' or 'n'
        local lane
        if name then
            lane = claim.lanes[name]
            -- A job of a name that nobody here knows stays where it is, if it is one.
            if not lane and is_message(element) then return false end
        end
        if not lane then
            -- It cannot be read here: whoever asked finds out why, and puts it aside.
            kind, retries, name = 'u', 0, ''
            id = 'unreadable-' .. redis.call('INCR', P .. 'token')
            for _, candidate in pairs(claim.lanes) do lane = candidate end
        end
        if lanes[lane] <= 0 then return false end
        local record = redis.call('GET', P .. 'job:' .. id)
        if not record then
            record = kind ~= 'u' and record_of(element) or ''
            -- A copy of a job that has succeeded is not run again.
            local result = kind ~= 'u' and in_database(result_db, function() return redis.call('GET', result_prefix .. id) end)
            if result_db ~= '' then redis.call('SELECT', broker_db) end
            if status_of(result) == 'SUCCESS' then return true end
            if record ~= '' then release_key(record, id, true, now) end
        elseif string.byte(record, 1) == 99 then
            -- It was cancelled where it could not be taken out of the list.
            local left = redis.call('PTTL', P .. 'job:' .. id)
            redis.call('ZADD', P .. 'stopped:' .. claim.queue, whole(now + math.max(left, 1000) * 1000), id)
            redis.call('HSET', P .. 'stopped:' .. claim.queue .. ':jobs', id, element)
            redis.call('SET', P .. 'job:' .. id, 'p' .. string.sub(record, 2), 'KEEPTTL')
            return true
        elseif string.byte(record, 1) == 120 then
            release_key(record, id, true, now)
        end
        if redis.call('HEXISTS', info, id) == 1 then return false end
        taken[#taken + 1] = { id, name, list, number, record, retries .. kind, element }
        lanes[lane] = lanes[lane] - 1
        claim.free = claim.free - 1
        return true
    end

    local function claim_from(claim, number, list)
        local looked, stay = 0, {}
        while true do
            local want = free_of(claim)
            if want <= 0 then
                break
            end
            if #stay > 0 then want = math.max(want, 50) end
            want = math.min(want, 500, scan_limit - looked)
            if want <= 0 then break end
            local elements = redis.call('RPOP', list, want)
            if not elements or #elements == 0 then break end
            looked = looked + #elements
            for i, element in ipairs(elements) do in_hand[#in_hand + 1] = { list, element } end
            for _, element in ipairs(elements) do
                if not take(claim, number, list, element) then stay[#stay + 1] = element end
            end
            if #elements < want then break end
        end
        if #stay > 0 then
            local rotates = looked >= scan_limit and #stay == looked
            if rotates then
                -- Nothing but strangers as far as may be looked: they go to the back, so that those behind them have their turn.
                for _, element in ipairs(stay) do redis.call('LPUSH', list, element) end
            else
                for i = #stay, 1, -1 do redis.call('RPUSH', list, stay[i]) end
            end
            local kept = {}
            for _, element in ipairs(stay) do kept[element] = true end
            for i = #in_hand, 1, -1 do
                if in_hand[i][1] == list and kept[in_hand[i][2]] then table.remove(in_hand, i) end
            end
        end
        return #stay
    end

    local function claim_all()
        for _, claim in ipairs(claims) do
            local delayed = P .. 'delayed:' .. claim.queue
            local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', whole(now), 'LIMIT', 0, 500)
            for _, id in ipairs(due) do
                local value = redis.call('HGET', delayed .. ':jobs', id)
                redis.call('ZREM', delayed, id)
                redis.call('HDEL', delayed .. ':jobs', id)
                if value then
                    local line = string.find(value, '\n', 1, true)
                    redis.call('LPUSH', string.sub(value, 1, line - 1), string.sub(value, line + 1))
                    redis.call('PEXPIRE', P .. 'job:' .. id, 604800000)
                end
            end
            if #due == 500 then has_more = true end
            local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
            if first[2] and (not next_due or tonumber(first[2]) < next_due) then next_due = tonumber(first[2]) end

            if not (has_paused and redis.call('SISMEMBER', P .. 'paused', claim.queue) == 1) then
                for index, list in ipairs(claim.lists) do
                    local number = claim.first + index
                    local kind = redis.call('TYPE', list).ok
                    if kind ~= 'list' and kind ~= 'none' then error('the key of the queue ' .. claim.queue .. ' holds a ' .. kind) end
                    local left = claim_from(claim, number, list)
                    if left > 0 then has_strangers = true end
                    if free_of(claim) <= 0 then
                        -- Whatever is left in any of its lists must be asked for again.
                        for _, other in ipairs(claim.lists) do
                            if redis.call('LLEN', other) > 0 then has_more = true end
                        end
                        break
                    end
                    if left == 0 then empty[#empty + 1] = number end
                end
            end
        end
    end

    local sound, complaint = pcall(claim_all)
    if not sound then
        -- Whatever was in hand goes back, in the order in which it came.
        for i = #in_hand, 1, -1 do redis.call('RPUSH', in_hand[i][1], in_hand[i][2]) end
        taken = {}
        problem = type(complaint) == 'table' and complaint.err or tostring(complaint)
    end

    if #taken > 0 then
        token = redis.call('INCRBY', P .. 'token', #taken) - #taken
        local began, ids = whole(now), {}
        for i, job in ipairs(taken) do
            local mine = whole(token + i)
            redis.call('HSET', held, job[1], job[7])
            redis.call('HSET', info, job[1], info_of(mine, began, job[3], job[5]))
            ids[i] = job[1]
            -- Only what was put back before has a record of interest.
            local record = string.find(job[5], '"lost":', 1, true) and job[5] or (job[6] ~= '0n' and job[5]) or ''
            local last = #deliveries
            deliveries[last + 1], deliveries[last + 2], deliveries[last + 3] = job[4], job[1], job[2]
            deliveries[last + 4], deliveries[last + 5], deliveries[last + 6] = job[6], record, job[7]
        end
        redis.call('PUBLISH', P .. 'started', table.concat(ids, '\n'))
    end
end

if made_ready then redis.call('PUBLISH', P .. 'work', 'ready') end
return { is_alive and 1 or 0, codes, refused, redis.call('SMEMBERS', cancelled), dead, next_due and whole(next_due) or '',
    has_more and 1 or 0, has_strangers and 1 or 0, empty, token + 1, deliveries, whole(now), problem }
