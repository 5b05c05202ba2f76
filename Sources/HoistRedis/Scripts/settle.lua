-- Settles what the worker has finished and stores what it reports: the part of worker_turn.lua that reads
--       the number of jobs that are simply done, and in turn of all of them the columns of TurnWire.Done: ids, tokens,
--         seconds of results ('' for no result, 0 for ever, - to remove one), results
--       the number of other settlements, and for each: the places of TurnWire.Settlement; then by its operation
--         S  the job is done                       nothing more; as above, for a result with a key of its own
--         E  it is done and its message is kept    the places of TurnWire.Ending
--         H  the same, unless its cancellation was asked for
--         B  it goes back                          the places of TurnWire.Return
--       and behind each of them, the number of things that follow from it, and for each its kind and
--         m  a message to be published             the places of TurnWire.FollowingMessage
--         r  a result of another job               the places of TurnWire.FollowingResult
--       the number of progress reports, and for each: the places of TurnWire.Progress
--
-- A side is L (back), R (front), A (back and not begun), or F (front and not begun: it has used up nothing of a rate).
-- Answers with a code for each of the other settlements (1 done; 0 refused; 2 somebody wants it cancelled: settle it
-- so; 3 what follows cannot be published, for the key of a queue holds no list), and the ids of what was refused.

local writes = {}
local function store_result(key, seconds, value, is_final)
    if key ~= '' then writes[#writes + 1] = { key, seconds, value, is_final } end
end

results_at = { database = result_db, broker = broker_db, prefix = turn.result_prefix }
state_of_result = function(id) return status_of(result_of(id)) end

local has_permits = is_there(P .. 'permits')
local has_released = false
local function let_go(id, goes_back)
    redis.call('HDEL', held, id)
    redis.call('HDEL', info, id)
    if has_permits and release_permits(id, goes_back) then has_released = true end
end

-- What is asked for is read and checked first, then results are stored, then jobs are put where they go, and only then
-- they are let go: an error on the way changes nothing that a second call would not put right.
for _, key in ipairs({ held, info }) do demand(key, 'hash') end
if has_permits then demand(P .. 'permits', 'hash') end
local any_cancelled = is_there(cancelled)
local lost, done, done_records, done_keys = {}, {}, {}, {}
local done_count = tonumber(next_argument())
local known_of_done = is_alive and values_of(info, ARGV, at, at + done_count - 1) or {}
for i = 0, done_count - 1 do
    local id, known = ARGV[at + done_id * done_count + i], known_of_done[i + 1]
    if has_token(known, ARGV[at + done_token * done_count + i]) then
        done[#done + 1] = id
        done_records[#done] = known
        done_keys[#done] = P .. 'job:' .. id
        local seconds = ARGV[at + done_seconds * done_count + i]
        if seconds ~= '' then store_result(turn.result_prefix .. id, seconds, ARGV[at + done_result * done_count + i], true) end
    else
        lost[#lost + 1] = id
    end
end
at = at + done_columns * done_count

local codes, others = {}, {}
for i = 1, tonumber(next_argument()) do
    local step = next_settlement()
    local operation = step.operation
    if operation == 'B' then
        next_return(step)
        demand(P .. 'delayed:' .. step.queue, 'zset')
        demand(P .. 'delayed:' .. step.queue .. ':jobs', 'hash')
    elseif operation ~= 'S' then
        next_ending(step)
        demand(P .. step.kind .. ':' .. step.queue, 'zset')
        demand(P .. step.kind .. ':' .. step.queue .. ':jobs', 'hash')
    end
    step.follow_ups = {}
    local can_follow = true
    for j = 1, tonumber(next_argument()) do
        local item = { kind = next_argument() }
        if item.kind == 'm' then
            next_following_message(item)
            if not can_place(item.list, item.queue, item.due) then can_follow = false end
        else
            next_following_result(item)
        end
        step.follow_ups[j] = item
    end
    step.known = is_alive and redis.call('HGET', info, step.id)
    if not has_token(step.known, step.token) then
        codes[i] = 0
    elseif (operation == 'B' or operation == 'H') and any_cancelled and redis.call('SISMEMBER', cancelled, step.id) == 1 then
        codes[i] = 2
    elseif not can_follow then
        codes[i] = 3
    else
        codes[i] = 1
        others[#others + 1] = step
        store_result(step.result_key, step.seconds, step.result, operation == 'S')
        for _, item in ipairs(step.follow_ups) do
            if item.kind == 'r' then store_result(item.key, item.seconds, item.result, false) end
        end
    end
end

local refused = lost
for _ = 1, tonumber(next_argument()) do
    local report = next_progress()
    if not has_token(is_alive and redis.call('HGET', info, report.id), report.token) then
        refused[#refused + 1] = report.id
    else
        store_result(report.result_key, report.seconds, report.result, true)
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
-- What follows a job is published before the job is let go. An id that is known was published when the job ended
-- before.
for _, step in ipairs(others) do
    for _, item in ipairs(step.follow_ups) do
        local id = item.id
        -- A job that takes the place of this one has its id.
        if item.kind == 'm' and id == step.id then step.is_replaced = true end
        if item.kind == 'm' and (id == step.id or redis.call('EXISTS', P .. 'job:' .. id) == 0) and status_of(result_of(id)) ~= 'SUCCESS' then
            redis.call('SADD', P .. 'queues', item.queue)
            if place_job(id, item.list, item.queue, item.record, item.envelope, item.due, now) then made_ready = true end
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
for _, step in ipairs(others) do
    local id, operation, queue = step.id, step.operation, step.queue
    local record = record_in(step.known)
    local kept = operation ~= 'S' and (step.envelope or '') == '' and redis.call('HGET', held, id) or step.envelope or ''
    local is_begun = operation == 'B' and step.side ~= 'A'
    -- Whatever this worker wanted to find out, it has: others may look at the queue again.
    if redis.pcall('GET', P .. 'placing:' .. queue) == worker then redis.call('DEL', P .. 'placing:' .. queue) end
    -- The job is put where it goes before it is let go. Two messages of one id may go to one place: neither takes the
    -- place of the other.
    local function name_in_place(place, value)
        local there = redis.call('HGET', place .. ':jobs', id)
        return there and there ~= value and id .. '#' .. string.match(step.known, '^%d+') or id
    end
    if operation == 'E' or operation == 'H' then
        local place = P .. step.kind .. ':' .. queue
        local name = name_in_place(place, kept)
        redis.call('HSET', place .. ':jobs', name, kept)
        redis.call('ZADD', place, step.keep_until, name)
        redis.call('SET', P .. 'job:' .. name, step.record, 'PX', math.max(1, math.ceil((tonumber(step.keep_until) - now) / 1000)))
    elseif operation == 'B' then
        local due, side = step.due, step.side
        -- Where the key of the queue holds something else, the job waits among the delayed ones until it is put right.
        if not can_hold_messages(step.list) then due = whole(math.max(tonumber(due) or 0, now + 5000000)) end
        if due ~= '' and tonumber(due) > now then
            local delayed = P .. 'delayed:' .. queue
            local value = step.list .. '\n' .. kept
            local name = name_in_place(delayed, value)
            redis.call('HSET', delayed .. ':jobs', name, value)
            redis.call('ZADD', delayed, due, name)
            redis.call('SET', P .. 'job:' .. name, step.record)
            -- It may be due before anything that workers wait for.
            if redis.call('ZRANGE', delayed, 0, 0)[1] == name then made_ready = true end
        else
            if side == 'R' or side == 'F' then push_in_front(step.list, kept) else redis.call('LPUSH', step.list, kept) end
            redis.call('SET', P .. 'job:' .. id, step.record, 'PX', waiting_record_lifetime)
            made_ready = true
        end
    end
    let_go(id, is_begun)
    redis.call('SREM', cancelled, id)
    if operation == 'S' and not step.is_replaced then redis.call('DEL', P .. 'job:' .. id) end
    if operation ~= 'B' then
        release_key(record, id, false, now)
    elseif step.side == 'F' and is_there(P .. 'limits') then
        know_limits()
        give_rates_back(queue, kept, worker)
    end
end
