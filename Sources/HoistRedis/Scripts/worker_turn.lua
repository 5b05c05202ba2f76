-- Settles what a worker has finished, stores progress, and hands it new jobs.
--
-- ARGV: now, worker, broker database, result database ('' when it is the same), prefix of result keys, how many elements may be looked
--       at in each list, 1 to settle for a worker whose lease is over,
--       a number for the claims if they are to wait here for jobs to come ('' when not, - for a part of a turn that is not the first:
--       where there are limits only the first claims, for it may have to put jobs back in their order), the version of those that the worker
--       believes to wait already ('' for none), then
--       the number of jobs that are simply done, and of all of them in turn: ids, tokens, seconds of results ('' for no result, 0 for
--         ever, - to remove one), results
--       the number of other settlements, and for each ten: id, token, operation, result key ('' for no result), its seconds (0 for ever),
--       result, queue, and three that the operation needs:
--         S  the job is done                       -, -, -; as above, for a result with a key of its own
--         E  it is done and its message is kept    kind (dead, stopped), keep until, record
--         H  the same, unless its cancellation was asked for
--         B  it goes back                          list, due ('' for now) and side (L back, R front, A back and not begun, F front and
--                                                  not begun: it has used up nothing of a rate) in one word, record; and an
--                                                  eleventh: the envelope, '' for the one that is held
--       behind each of them, the number of things that follow from it, and for each seven: its kind and six members
--         m  a message to be published             id, list, queue, record, envelope, due ('' for now)
--         r  a result of another job               its key, its seconds (0 for ever), result, -, -, -
--       the number of progress reports, and for each five: id, token, result key, its seconds, result
--       the number of claims, and for each: queue, free slots of the queue ('' for no limit), number of lists, the lists, number of
--         names, and for each name: the name and the number of its lane
--       the free slots of each lane
-- Claims wait under one key until another call with claims takes them away, or claim_standing.lua carries them out: jobs are handed out by one of
-- the two. A worker sends claim_standing.lua behind a command that blocks until there is a job, and so need not ask.
-- Returns {alive, a code for each of the other settlements (1 done, 0 refused, 2 somebody wants it cancelled: settle it so, 3 what follows
--          cannot be published, for the key of a queue holds no list), ids of refused
--          progress and of jobs refused as done,
--          ids to cancel, workers whose lease is over, next due time ('' for none), whether there is more, whether elements were left
--          that nobody here can take, the numbers of lists that are empty (counted through all claims), the token of the first delivery,
--          and {for each delivery six: the number of its list, id, name, retries and kind in one word (kind: n normal, t look at its
--          times, u it cannot be read, k find out what it belongs to, d end it: a limit says so), record ('' when it holds nothing of interest), envelope}, the time that it is here, what went
--          wrong with the claims ('' for nothing), the version of the claims that wait now ('' for none, - when what they got
--          is on its way)}. A version is the claims' number and how often they have been carried out, with a point between. Tokens go up by one.
-- Atomic, so that a job is at every moment in a queue, with a worker, or ended: never in none of them, never in two.

local now = time_of(ARGV[1])
local worker = ARGV[2]
local broker_db, result_db, result_prefix = ARGV[3], ARGV[4], ARGV[5]
local scan_limit = tonumber(ARGV[6])
local is_forced = ARGV[7] == '1'
local standing = P .. 'standing:' .. worker
local at = 10
local function next_argument()
    local value = ARGV[at]
    at = at + 1
    return value
end

pass_full_server()
-- Before anything is changed: where the other database cannot be used, nothing may be.
if result_db ~= '' then
    redis.call('SELECT', result_db)
    redis.call('SELECT', broker_db)
end

-- Workers whose lease is over.
local dead, first_lease = {}, redis.call('ZRANGE', P .. 'workers', 0, 0, 'WITHSCORES')[2]
if first_lease and tonumber(first_lease) <= now then
    give_time_after_stall(now)
    dead = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(now), 'LIMIT', 0, 16)
end

local lease = redis.call('ZSCORE', P .. 'workers', worker)
local is_alive = is_forced or (lease and tonumber(lease) > now)
local held = P .. 'held:' .. worker
local info = P .. 'held:' .. worker .. ':info'
local cancelled = P .. 'cancel:' .. worker

-- Mostly none of these is there, which one question tells.
local is_special = redis.call('EXISTS', cancelled, P .. 'permits', P .. 'limits', P .. 'flow', P .. 'closed', P .. 'full', P .. 'paused') > 0
local function is_there(key) return is_special and redis.call('EXISTS', key) == 1 end

local writes = {}
local function store_result(key, seconds, value, is_final)
    if key ~= '' then writes[#writes + 1] = { key, seconds, value, is_final } end
end

results_at = { database = result_db, broker = broker_db, prefix = result_prefix }
state_of_result = function(id) return status_of(result_of(id)) end

local has_permits = is_there(P .. 'permits')
local has_released = false
local function let_go(id, goes_back)
    redis.call('HDEL', held, id)
    redis.call('HDEL', info, id)
    if has_permits and release_permits(id, goes_back) then has_released = true end
end

-- What is asked for is read and checked first, then results are stored, and only then jobs are let go: an error on the way changes nothing
-- that a second call would not put right.
local any_cancelled = is_there(cancelled)
local lost, done, done_records, done_keys = {}, {}, {}, {}
local done_count = tonumber(next_argument())
local known_of_done = is_alive and values_of(info, ARGV, at, at + done_count - 1) or {}
for i = 0, done_count - 1 do
    local id, known = ARGV[at + i], known_of_done[i + 1]
    if has_token(known, ARGV[at + done_count + i]) then
        done[#done + 1] = id
        done_records[#done] = known
        done_keys[#done] = P .. 'job:' .. id
        local seconds = ARGV[at + 2 * done_count + i]
        if seconds ~= '' then store_result(result_prefix .. id, seconds, ARGV[at + 3 * done_count + i], true) end
    else
        lost[#lost + 1] = id
    end
end
at = at + 4 * done_count

local codes, others = {}, {}
for i = 1, tonumber(next_argument()) do
    local id, token, operation, result_key, seconds, result, queue = next_argument(), next_argument(), next_argument(),
        next_argument(), next_argument(), next_argument(), next_argument()
    local first, second, third = next_argument(), next_argument(), next_argument()
    local envelope = operation == 'B' and next_argument() or ''
    local follow_ups, can_follow = {}, true
    for j = 1, tonumber(next_argument()) do
        local item = { next_argument(), next_argument(), next_argument(), next_argument(), next_argument(), next_argument(), next_argument() }
        if item[1] == 'm' and not can_hold_messages(item[3]) then can_follow = false end
        follow_ups[j] = item
    end
    local known = is_alive and redis.call('HGET', info, id)
    if not has_token(known, token) then
        codes[i] = 0
    elseif (operation == 'B' or operation == 'H') and any_cancelled and redis.call('SISMEMBER', cancelled, id) == 1 then
        codes[i] = 2
    elseif not can_follow then
        codes[i] = 3
    else
        codes[i] = 1
        others[#others + 1] = { id, operation, queue, first, second, third, envelope, known, follow_ups }
        store_result(result_key, seconds, result, operation == 'S')
        for _, item in ipairs(follow_ups) do
            if item[1] == 'r' then store_result(item[2], item[3], item[4], false) end
        end
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
                put_result(key, seconds, value)
            end
        end
    end)
    if result_db ~= '' then redis.call('SELECT', broker_db) end
end

local made_ready = false
-- What follows a job is published before the job is let go. An id that is known was published when the job ended before.
for _, job in ipairs(others) do
    for _, item in ipairs(job[9]) do
        local kind, id, list, queue, record, envelope, due = unpack(item)
        if kind == 'm' and redis.call('EXISTS', P .. 'job:' .. id) == 0 and status_of(result_of(id)) ~= 'SUCCESS' then
            redis.call('SADD', P .. 'queues', queue)
            if place_job(id, list, queue, record, envelope, due, now) then made_ready = true end
        end
    end
end
for_slices(#done, function(first, last)
    redis.call('HDEL', held, unpack(done, first, last))
    redis.call('HDEL', info, unpack(done, first, last))
    redis.call('DEL', unpack(done_keys, first, last))
    if any_cancelled then redis.call('SREM', cancelled, unpack(done, first, last)) end
end)
for i, id in ipairs(done) do
    if has_permits and release_permits(id) then has_released = true end
    if string.find(done_records[i], '"u":', 1, true) then release_key(record_in(done_records[i]), id, false, now) end
end
for _, job in ipairs(others) do
    local id, operation, queue, first, second, third, envelope, known = unpack(job, 1, 8)
    local record = record_in(known)
    local kept = operation ~= 'S' and envelope == '' and redis.call('HGET', held, id) or envelope
    local is_begun = operation == 'B' and string.byte(second, -1) ~= 65
    -- Whatever this worker wanted to find out, it has: others may look at the queue again.
    if redis.call('GET', P .. 'placing:' .. queue) == worker then redis.call('DEL', P .. 'placing:' .. queue) end
    let_go(id, is_begun)
    redis.call('SREM', cancelled, id)
    if operation == 'S' then
        redis.call('DEL', P .. 'job:' .. id)
        release_key(record, id, false, now)
    elseif operation == 'E' or operation == 'H' then
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
            redis.call('SET', P .. 'job:' .. id, third, 'PX', waiting_record_lifetime)
            redis.call((side == 'R' or side == 'F') and 'RPUSH' or 'LPUSH', first, kept)
            made_ready = true
            if side == 'F' and is_there(P .. 'limits') then
                know_limits()
                give_rates_back(queue, kept, worker)
            end
        end
    end
end

local deliveries, empty, token, problem = {}, {}, 0, ''
local next_due, has_more, has_strangers, stands = nil, false, false, ''
local function note_due(time)
    if not next_due or time < next_due then next_due = time end
end
local claim_count = tonumber(next_argument())
if claim_count > 0 and ARGV[8] == '-' and is_there(P .. 'limits') then
    claim_count = 0
    has_more = true
end
if claim_count > 0 then
    local before = ARGV[9] ~= '' and redis.call('GET', standing) or ''
    if string.sub(before, 1, #ARGV[9] + 1) == ARGV[9] .. '\n' or ARGV[9] == '' then
        redis.call('DEL', standing)
    else
        -- They were carried out a moment ago, and what they got is on its way to the worker: it has less room than it thinks.
        claim_count = 0
        has_more = true
        stands = '-'
    end
end
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
    local has_paused, has_limits = is_there(P .. 'paused'), is_there(P .. 'limits')
    local has_flow = has_limits or is_there(P .. 'flow') or is_there(P .. 'closed') or is_there(P .. 'full')
    local in_hand, taken, lines_at_hand = {}, {}, {}
    local unread = {}
    -- What was taken out of a list, and what is found out about it. All at once: a table that grows is made anew each time.
    local function take_in_hand(list, element)
        local thing = {
            list = list, element = element, has_place = false, is_stranger = false, about = false, is_held = false, record = unread,
        }
        in_hand[#in_hand + 1] = thing
        return thing
    end
    local is_taken, turns = {}, 0

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

    local function pop(list, count)
        local batch = {}
        for i, element in ipairs(redis.call('RPOP', list, count) or {}) do
            batch[i] = take_in_hand(list, element)
        end
        return batch
    end

    -- What is known of the jobs of a batch, in a few calls for all of them: one for each would cost more than all else that is done with
    -- them. Limits may change records on the way, so that with them each is read in its turn.
    local function look_up(claim, batch)
        local known, ids, keys = {}, {}, {}
        for _, thing in ipairs(batch) do
            thing.about = { describe(thing.element) }
            local name, id = thing.about[1], thing.about[2]
            if name and claim.lanes[name] then
                known[#known + 1] = thing
                ids[#ids + 1] = id
                keys[#keys + 1] = P .. 'job:' .. id
            end
        end
        if #known == 0 then return end
        local holds, records = redis.call('HMGET', info, unpack(ids)), not has_limits and redis.call('MGET', unpack(keys))
        for i, thing in ipairs(known) do
            thing.is_held = holds[i]
            if records then thing.record = records[i] end
        end
    end

    -- Gives a job to the worker, unless it turns out to have ended.
    local function hand_out(claim, number, thing, name, id, word, lane, scopes, cost)
        local element = thing.element
        local starts = string.sub(word, -1) ~= 'k'
        local record = thing.record
        if record == unread then record = redis.call('GET', P .. 'job:' .. id) end
        local is_known = string.sub(word, -1) ~= 'u'
        if not record then
            record = is_known and record_of(element) or ''
            -- A copy of a job that has succeeded is not run again.
            if is_known and state_of_result(id) == 'SUCCESS' then
                thing.has_place = true
                if release_permits(id, false) then has_released = true end
                return
            end
            if record ~= '' and starts then release_key(record, id, true, now) end
        elseif string.byte(record, 1) == 99 then
            -- It was cancelled where it could not be taken out of the list.
            local left = redis.call('PTTL', P .. 'job:' .. id)
            redis.call('ZADD', P .. 'stopped:' .. claim.queue, whole(now + math.max(left, 1000) * 1000), id)
            redis.call('HSET', P .. 'stopped:' .. claim.queue .. ':jobs', id, element)
            redis.call('SET', P .. 'job:' .. id, 'p' .. string.sub(record, 2), 'KEEPTTL')
            thing.has_place = true
            if release_permits(id, false) then has_released = true end
            return
        elseif string.byte(record, 1) == 120 and starts then
            release_key(record, id, true, now)
        end
        if scopes then enter(scopes, id, cost, now) end
        is_taken[id] = true
        taken[#taken + 1] = { id, name, claim.lists[number], claim.first + number, record, word, thing }
        lanes[lane] = lanes[lane] - 1
        claim.free = claim.free - 1
    end

    -- What only queues need that have limits, or lines that are left of some. Made for those alone, like the limits.
    local is_out_of_time, passes_limits, serve_lines
    local function know_lines()
        -- Puts a job into its line, and a line that was empty where it is found again.
        local function file(claim, line, list, thing, in_front, scope, time)
            redis.call(in_front and 'RPUSH' or 'LPUSH', line_key(list, line), thing.element)
            thing.has_place = true
            if redis.call('SADD', P .. 'lines:' .. claim.queue, line) == 0 then return end
            redis.call('SADD', P .. 'flow', claim.queue)
            if scope then
                redis.call('RPUSH', P .. 'behind:' .. claim.queue .. '\n' .. scope.id, line)
                redis.call('ZADD', P .. 'waits:' .. claim.queue, 'NX', whole(time), scope.id)
            else
                redis.call('RPUSH', P .. 'turn:' .. claim.queue, line)
            end
        end

        -- Whether a job is not to start now whatever limits say: it is not due, or too late. The worker that gets it puts it aside.
        function is_out_of_time(eta, expires)
            local due, last = microseconds_of(eta), microseconds_of(expires)
            return (due and due > now) or (last and last <= now)
        end

        -- What limits say to a job that has just come out of its list.
        -- Returns whether it may go on, then its scopes, cost and, when a limit ends it, d.
        function passes_limits(claim, list, thing, name, id, has_room)
            local queue = claim.queue
            local partition, cost = partition_of(thing.element)
            local scopes, takes_turns, line = scopes_of(queue, name, partition or '', worker)
            local is_next, place, place_of_line = false, nil, false
            for _, scope in ipairs(scopes) do
                -- It has its place at the head of its partition and comes back to it.
                if scope.limit.k == 'ordered' then
                    list, place_of_line = claim.lists[1], true
                    if redis.call('ZSCORE', P .. 'active:' .. scope.id, id) then is_next, place = true, scope.id end
                end
            end
            if not is_next and (takes_turns and partition or redis.call('SISMEMBER', P .. 'lines:' .. queue, line) == 1) then
                for _, scope in ipairs(scopes) do
                    if scope.limit.full == 'drop' and held_up(scope, id, cost, now) then return true, nil, nil, 'd' end
                end
                file(claim, line, list, thing, false)
                return false
            end
            for _, scope in ipairs(scopes) do
                local time = held_up(scope, id, cost, now)
                -- Others were here before.
                local counts = scope.limit.k ~= 'rate' or cost > 0
                if not time and counts and not is_next and redis.call('EXISTS', P .. 'behind:' .. queue .. '\n' .. scope.id) == 1 then time = now end
                if time then
                    if scope.limit.full == 'drop' then return true, nil, nil, 'd' end
                    if scope.limit.full == 'cancel' then cancel_oldest(scope, is_taken, worker) end
                    -- What only this worker may not start goes where others find it.
                    file(claim, line, list, thing, is_next, scope.limit.w ~= 'w' and scope or nil, time)
                    if scope.limit.w == 'w' then note_due(time) end
                    -- Those behind it wait for its end; it does not.
                    if place then redis.call('ZADD', P .. 'waits:' .. queue, 'XX', '0', place) end
                    return false
                end
            end
            if place_of_line and not is_next and not has_room then
                file(claim, line, list, thing, false)
                return false
            end
            return true, scopes, cost
        end

        -- The line whose turn it is, and the scope that it was behind.
        local function next_line(queue, is_behind_first)
            local function behind()
                while true do
                    local id = redis.call('ZRANGEBYSCORE', P .. 'waits:' .. queue, '-inf', whole(now), 'LIMIT', 0, 1)[1]
                    if not id then return nil end
                    local line = redis.call('LPOP', P .. 'behind:' .. queue .. '\n' .. id)
                    if line then return line, id end
                    redis.call('ZREM', P .. 'waits:' .. queue, id)
                end
            end
            if is_behind_first then
                local line, id = behind()
                if line then return line, id end
            end
            local line = redis.call('LPOP', P .. 'turn:' .. queue)
            if line then return line end
            return behind()
        end

        -- Puts a line where it waits for its next turn: behind a scope that others wait for as well, else at the end.
        local function put_back(claim, line, scopes)
            lines_at_hand[claim.queue .. '\n' .. line] = nil
            for _, scope in ipairs(scopes) do
                local behind = P .. 'behind:' .. claim.queue .. '\n' .. scope.id
                if redis.call('EXISTS', behind) == 1 then return redis.call('RPUSH', behind, line) end
            end
            redis.call('RPUSH', P .. 'turn:' .. claim.queue, line)
        end

        -- The first job of a line that this worker has room for. Where order matters that is the first one, or none.
        local function first_for_us(claim, line)
            for number, list in ipairs(claim.lists) do
                local key = line_key(list, line)
                -- Mostly it is the first.
                local elements = { redis.call('LINDEX', key, -1) or nil }
                local name = elements[1] and describe(elements[1])
                local lane = name and claim.lanes[name]
                if elements[1] and not (lane and lanes[lane] > 0) then elements = redis.call('LRANGE', key, -50, -1) end
                local strangers = 0
                for i = #elements, 1, -1 do
                    local name, id = describe(elements[i])
                    local lane = claim.lanes[name]
                    if lane and lanes[lane] > 0 and not is_taken[id] and redis.call('HEXISTS', info, id) == 0 then
                        return number, key, elements[i]
                    end
                    if not lane then
                        strangers = strangers + 1
                        has_strangers = true
                    end
                    if is_ordered(claim.queue, name) then return nil end
                end
                -- Nothing but strangers: they go behind the others.
                if strangers == 50 then
                    for _ = 1, 50 do redis.call('LMOVE', key, key, 'RIGHT', 'LEFT') end
                end
            end
            return nil
        end

        local function take_from(key, element)
            redis.call('LREM', key, -1, element)
            return take_in_hand(key, element)
        end

        -- Hands out the first job of a line, if its limits let it start.
        -- Returns whether the line must wait until this worker has room for it.
        local function serve(claim, line, came_from)
            local queue = claim.queue
            local length = 0
            for _, list in ipairs(claim.lists) do length = length + redis.call('LLEN', line_key(list, line)) end
            if length == 0 then
                redis.call('SREM', P .. 'lines:' .. queue, line)
                if redis.call('EXISTS', P .. 'lines:' .. queue) == 0 then redis.call('SREM', P .. 'flow', queue) end
                return false
            end
            local number, key, element = first_for_us(claim, line)
            if not element then return true end
            local name, id, retries, timed, eta, expires = describe(element)
            local lane = claim.lanes[name]
            if is_out_of_time(eta, expires) then
                hand_out(claim, number, take_from(key, element), name, id, retries .. 't', lane)
                put_back(claim, line, {})
                return false
            end
            local partition, cost = partition_of(element)
            local scopes = scopes_of(queue, name, partition or '', worker)
            local word = timed and 't' or 'n'
            for _, scope in ipairs(scopes) do
                -- Only the newest of them counts, also when there is room for an older one.
                if scope.limit.full == 'cancel' and length > scope.limit.n then
                    word = 'd'
                    break
                end
                local time = held_up(scope, id, cost, now)
                if time then
                    if scope.limit.w == 'w' then
                        note_due(time)
                        return true
                    end
                    if scope.limit.full == 'cancel' then cancel_oldest(scope, is_taken, worker) end
                    if scope.limit.full == 'drop' then
                        word = 'd'
                        break
                    end
                    local behind = P .. 'behind:' .. queue .. '\n' .. scope.id
                    redis.call(came_from == scope.id and 'LPUSH' or 'RPUSH', behind, line)
                    redis.call('ZADD', P .. 'waits:' .. queue, whole(time), scope.id)
                    lines_at_hand[queue .. '\n' .. line] = nil
                    return false
                end
            end
            hand_out(claim, number, take_from(key, element), name, id, retries .. word, lane, word ~= 'd' and scopes, cost)
            put_back(claim, line, scopes)
            return false
        end

        function serve_lines(claim, most)
            local goal, steps, skipped = #taken + most, 0, {}
            local is_behind_first = turns % 4 < 2
            while #taken < goal and free_of(claim) > 0 and steps < 300 do
                local line, scope = next_line(claim.queue, is_behind_first)
                if not line then break end
                lines_at_hand[claim.queue .. '\n' .. line] = { claim.queue, line }
                if serve(claim, line, scope) then skipped[#skipped + 1] = line end
                is_behind_first = not is_behind_first
                steps = steps + 1
            end
            for _, line in ipairs(skipped) do put_back(claim, line, {}) end
            -- Those that were looked at are at the end now.
            if steps >= 300 then note_due(now + (#skipped == steps and 1000000 or 20000)) end
            if free_of(claim) <= 0 then
                if redis.call('EXISTS', P .. 'lines:' .. claim.queue) == 1 then has_more = true end
            else
                local first = redis.call('ZRANGE', P .. 'waits:' .. claim.queue, 0, 0, 'WITHSCORES')
                if first[2] and tonumber(first[2]) > now then note_due(tonumber(first[2])) end
            end
        end
    end
    if has_flow then
        know_limits()
        know_lines()
    end

    -- Deals with one element of a list. It has a place then, or is the worker's, or must stay where it was.
    local function take(claim, number, list, thing)
        local name, id, retries, timed, eta, expires = unpack(thing.about, 1, 6)
        local word = timed and 't' or 'n'
        local lane
        if name then
            lane = claim.lanes[name]
            if not lane and is_message(thing.element) then
                -- A job of a name that nobody here knows stays where it is; in its line, where those behind it must not overtake it.
                if not (has_limits and is_ordered(claim.queue, name) and (partition_of(thing.element) or '') ~= ''
                    and not passes_limits(claim, list, thing, name, id, false)) then thing.is_stranger = true end
                return
            end
        end
        if not lane then
            -- It cannot be read here: the worker that asked finds out why, and puts it aside.
            word, retries, name = 'u', 0, ''
            id = 'unreadable-' .. redis.call('INCR', P .. 'token')
            for _, candidate in pairs(claim.lanes) do lane = candidate end
        end
        -- Of two messages of one id the second waits for the first.
        if is_taken[id] or thing.is_held then
            thing.is_stranger = true
            return
        end
        local scopes, cost
        local has_room = lanes[lane] > 0 and claim.free > 0
        if has_limits and word ~= 'u' and not is_out_of_time(eta, expires) then
            local keeps_order = is_ordered(claim.queue, name)
            if has_partitions(claim.queue, name) and not partition_of(thing.element) then
                if not keeps_order then
                    if has_room then hand_out(claim, number, thing, name, id, retries .. 'k', lane) end
                    return
                end
                -- One worker at a time finds out, and nobody goes on with what is behind meanwhile.
                local placing = P .. 'placing:' .. claim.queue
                if has_room and not claim.is_blocked and (claim.is_placing or redis.call('SET', placing, worker, 'NX', 'PX', 5000)
                    or redis.call('GET', placing) == worker) then
                    local before = #taken
                    hand_out(claim, number, thing, name, id, retries .. 'k', lane)
                    if #taken > before then claim.is_placing = true elseif not claim.is_placing then redis.call('DEL', placing) end
                    return
                end
                claim.is_blocked = true
                note_due(now + 100000)
                return
            end
            if keeps_order and (claim.is_placing or claim.is_blocked or redis.call('EXISTS', P .. 'placing:' .. claim.queue) == 1) then
                claim.is_blocked = true
                note_due(now + 100000)
                return
            end
            local may_go, verdict
            may_go, scopes, cost, verdict = passes_limits(claim, list, thing, name, id, has_room)
            if not may_go then return end
            word = verdict or word
        end
        if lanes[lane] <= 0 or claim.free <= 0 then return end
        hand_out(claim, number, thing, name, id, retries .. word, lane, scopes, cost)
    end

    local function claim_from(claim, number, list)
        local looked, stay, strangers = 0, {}, 0
        -- Who takes turns must be known before anybody's turn comes.
        local looks_ahead = has_limits and claim.takes_turns
        while true do
            local want = looks_ahead and 200 or free_of(claim)
            if want <= 0 or claim.is_blocked or (looks_ahead and #stay - strangers >= 200) then break end
            if #stay > 0 then want = math.max(want, 50) end
            want = math.min(want, 500, scan_limit - looked)
            if want <= 0 then
                if #stay < looked then has_more = true end
                break
            end
            local batch = pop(list, want)
            looked = looked + #batch
            look_up(claim, batch)
            for _, thing in ipairs(batch) do
                local before = #taken
                take(claim, number, list, thing)
                if not thing.has_place and #taken == before then
                    stay[#stay + 1] = thing
                    if thing.is_stranger then strangers = strangers + 1 end
                end
            end
            if #batch < want then break end
        end
        if #stay > 0 then
            -- Nothing but strangers as far as may be looked: they go to the back, so that those behind them have their turn.
            local rotates = looked >= scan_limit and strangers == looked
            for i = 1, #stay do
                local thing = rotates and stay[i] or stay[#stay + 1 - i]
                redis.call(rotates and 'LPUSH' or 'RPUSH', list, thing.element)
                thing.has_place = true
            end
        end
        return #stay
    end

    -- Whether a queue may be taken from.
    local function is_open(queue)
        if has_paused and redis.call('SISMEMBER', P .. 'paused', queue) == 1 then return false end
        local closed = has_flow and redis.call('HGET', P .. 'closed', queue)
        if not closed then return true end
        if tonumber(closed) > now then
            note_due(tonumber(closed))
            return false
        end
        redis.call('HDEL', P .. 'closed', queue)
        return true
    end

    local function move_due(claim)
        local delayed = P .. 'delayed:' .. claim.queue
        local nearest = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
        if not nearest then return end
        if tonumber(nearest) > now then return note_due(tonumber(nearest)) end
        local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', whole(now), 'LIMIT', 0, 500)
        for _, id in ipairs(due) do
            local value = redis.call('HGET', delayed .. ':jobs', id)
            redis.call('ZREM', delayed, id)
            redis.call('HDEL', delayed .. ':jobs', id)
            if value then
                local line = string.find(value, '\n', 1, true)
                redis.call('LPUSH', string.sub(value, 1, line - 1), string.sub(value, line + 1))
                redis.call('PEXPIRE', P .. 'job:' .. id, waiting_record_lifetime)
            end
        end
        if #due == 500 then has_more = true end
        local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
        if first[2] then note_due(tonumber(first[2])) end
    end

    local function claim_from_lists(claim)
        for index, list in ipairs(claim.lists) do
            local number = claim.first + index
            local kind = redis.call('TYPE', list).ok
            if kind ~= 'list' and kind ~= 'none' then error('the key of the queue ' .. claim.queue .. ' holds a ' .. kind) end
            local left = kind == 'list' and claim_from(claim, index, list) or 0
            if left > 0 then has_strangers = true end
            if free_of(claim) <= 0 then
                -- Whatever is left in any of its lists must be asked for again.
                for _, other in ipairs(claim.lists) do
                    if redis.call('LLEN', other) > 0 then has_more = true end
                end
                return
            end
            if left == 0 then empty[#empty + 1] = number end
        end
    end

    local function takes_turns(claim)
        for name in pairs(claim.lanes) do
            if has_limit_with(claim.queue, name, 'k', 'fair') then return true end
        end
        return false
    end

    local function claim_all()
        for _, claim in ipairs(claims) do
            move_due(claim)
            if is_open(claim.queue) then
                claim.takes_turns = has_limits and takes_turns(claim)
                -- Neither those in line nor those that come straight from the queue keep the others waiting for ever.
                local has_lines = has_flow and redis.call('EXISTS', P .. 'lines:' .. claim.queue) == 1
                if has_lines then turns = redis.call('HINCRBY', P .. 'turns-taken', claim.queue, 1) end
                if has_lines and turns % 2 == 0 then
                    serve_lines(claim, math.max(1, math.ceil(math.min(free_of(claim), 10000) / 2)))
                end
                if free_of(claim) > 0 then claim_from_lists(claim) else has_more = true end
                if has_flow and redis.call('EXISTS', P .. 'lines:' .. claim.queue) == 1 then serve_lines(claim, 10000) end
            end
        end
    end

    local sound, complaint = pcall(claim_all)
    if not sound then
        -- Whatever was in hand goes back, in the order in which it came.
        for _, job in ipairs(taken) do release_permits(job[1], true) end
        for i = #in_hand, 1, -1 do
            if not in_hand[i].has_place then redis.call('RPUSH', in_hand[i].list, in_hand[i].element) end
        end
        -- Lines that were on their way, or were empty for want of what has just gone back.
        for _, place in pairs(lines_at_hand) do
            local queue, line = unpack(place)
            redis.call('SADD', P .. 'lines:' .. queue, line)
            redis.call('SADD', P .. 'flow', queue)
            redis.call('RPUSH', P .. 'turn:' .. queue, line)
        end
        taken = {}
        problem = type(complaint) == 'table' and complaint.err or tostring(complaint)
    end

    if #taken > 0 then
        token = redis.call('INCRBY', P .. 'token', #taken) - #taken
        local began, ids, elements, infos = whole(now), {}, {}, {}
        for i, job in ipairs(taken) do
            local id, name, list, number, record, word, thing = unpack(job)
            elements[2 * i - 1], elements[2 * i] = id, thing.element
            infos[2 * i - 1], infos[2 * i] = id, info_of(string.format('%d', token + i), began, list, record)
            ids[i] = id
            -- Only what was put back before has a record of interest.
            local interest = string.find(record, '"lost":', 1, true) and record or (word ~= '0n' and record) or ''
            local last = #deliveries
            deliveries[last + 1], deliveries[last + 2], deliveries[last + 3] = number, id, name
            deliveries[last + 4], deliveries[last + 5], deliveries[last + 6] = word, interest, thing.element
        end
        for_slices(#elements, function(first, last)
            redis.call('HSET', held, unpack(elements, first, last))
            redis.call('HSET', info, unpack(infos, first, last))
        end)
        redis.call('PUBLISH', P .. 'started', table.concat(ids, '\n'))
        if has_flow and redis.call('DEL', P .. 'full') == 1 then redis.call('PUBLISH', P .. 'work', 'room') end
    end

    -- What is left of the claims waits, with what is left of the slots.
    if ARGV[8] ~= '' and ARGV[8] ~= '-' and problem == '' and not has_more and not has_strangers then
        local kept, is_any_free = { lane_of = {}, free_of_queue = {}, lanes = lanes }, false
        for _, claim in ipairs(claims) do
            for name, lane in pairs(claim.lanes) do kept.lane_of[claim.queue .. '\n' .. name] = lane end
            if claim.free ~= math.huge then kept.free_of_queue[claim.queue] = claim.free end
            if free_of(claim) > 0 then is_any_free = true end
        end
        if is_any_free then
            stands = ARGV[8] .. '.0'
            redis.call('SET', standing, stands .. '\n' .. cmsgpack.pack(kept))
        end
    end
end

if has_released then
    -- Somebody may start a job now that another one has ended: this worker if it did not ask yet, others if it cannot.
    for _, queue in ipairs(redis.call('SMEMBERS', P .. 'flow')) do
        if redis.call('ZRANGEBYSCORE', P .. 'waits:' .. queue, '-inf', whole(now), 'LIMIT', 0, 1)[1] then
            has_more = true
            made_ready = true
        end
    end
end
if made_ready then redis.call('PUBLISH', P .. 'work', 'ready') end
-- Limits may have had the oldest of them cancelled.
local to_cancel = is_special and redis.call('SMEMBERS', cancelled) or {}
-- An empty list costs the server more to answer than none.
local function unless_empty(list) return list[1] ~= nil and list end
return { is_alive and 1 or 0, unless_empty(codes), unless_empty(refused), unless_empty(to_cancel), unless_empty(dead),
    next_due and whole(next_due) or '', has_more and 1 or 0, has_strangers and 1 or 0, unless_empty(empty), token + 1,
    unless_empty(deliveries), whole(now), problem, stands }
