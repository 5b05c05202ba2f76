-- The lines in which jobs wait that limits hold up: what only queues need that have limits, or lines that are left of
-- some. Made for those alone, like the limits: functions cost what they cost when they are made.

-- What the claims find out and take; shared by lines.lua, claim.lua, standing.lua and answer.lua.
local deliveries, empty, token, problem = {}, {}, 0, ''
local next_due, has_more, has_strangers, stands = nil, false, false, ''
local function note_due(time)
    if not next_due or time < next_due then next_due = time end
end
local claims, lanes, in_hand, taken, is_taken, lines_at_hand, turns = {}, {}, {}, {}, {}, {}, 0
local has_limits, has_flow = false, false
-- What a turn carries away:
--   byte_limit      how many bytes of messages may be handed out, and read from each list: the answer must reach the
--                   worker within its time-out, also over a slow line, and the server must not be busy with one turn long
--   bytes_left      how many of them are left
--   takes_suspects  whether a job may be taken whose worker has died
--   refused         how many such jobs were not taken
--   copies          ids of copies that were dropped
--   gone            for each list, what goes out of it
local haul = {
    byte_limit = tonumber(turn.byte_limit), bytes_left = tonumber(turn.byte_limit),
    takes_suspects = turn.takes_suspects == '1', refused = 0, copies = {}, gone = {},
}
-- Made by claim.lua where there are claims.
local free_of, take_in_hand, hand_out

local is_out_of_time, passes_limits, serve_lines
local function know_lines()
    -- Puts a job into its line, and a line that was empty where it is found again.
    local function file(claim, line, list, thing, in_front, scope, time)
        demand(line_key(list, line), 'list')
        redis.call(in_front and 'RPUSH' or 'LPUSH', line_key(list, line), thing.element)
        count_in_line(claim.queue, 1)
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

    -- Whether a job is not to start now whatever limits say: it is not due, or too late. The worker that gets it puts
    -- it aside.
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
        local thing = take_in_hand(key, element)
        thing.is_out = true
        haul.bytes_left = haul.bytes_left - #element
        return thing
    end

    -- Returns false when the job must stay where it is.
    local function hand_out_of_line(claim, number, key, element, ...)
        local thing = take_from(key, element)
        hand_out(claim, number, thing, ...)
        if thing.is_taken or thing.has_place then
            count_in_line(claim.queue, -1)
            thing.counted = claim.queue
            return true
        end
        redis.call('RPUSH', key, element)
        thing.has_place = true
        return false
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
            if not hand_out_of_line(claim, number, key, element, name, id, retries .. 't', lane) then return true end
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
        local starts = word ~= 'd'
        if not hand_out_of_line(claim, number, key, element, name, id, retries .. word, lane, starts and scopes, cost) then return true end
        put_back(claim, line, scopes)
        return false
    end

    function serve_lines(claim, most)
        local goal, steps, skipped = #taken + most, 0, {}
        local is_behind_first = turns % 4 < 2
        while #taken < goal and free_of(claim) > 0 and steps < 300 and haul.bytes_left > 0 do
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
        if free_of(claim) <= 0 or haul.bytes_left <= 0 then
            if redis.call('EXISTS', P .. 'lines:' .. claim.queue) == 1 then has_more = true end
        else
            local first = redis.call('ZRANGE', P .. 'waits:' .. claim.queue, 0, 0, 'WITHSCORES')
            if first[2] and tonumber(first[2]) > now then note_due(tonumber(first[2])) end
        end
    end
end
