-- New jobs for the worker, out of the lists of its queues: the part of worker_turn.lua that reads
--       the number of claims (read by standing.lua before), and for each: queue, free slots of the queue ('' for no limit),
--         number of lists, the lists, number of names, and for each name: the name and the number of its lane
--       the free slots of each lane
-- Answers with what TurnWire.Delivery names for each job (its word is the number of retries and a letter: n normal, t
-- look at its times, u it cannot be read, k find out what it belongs to, d end it: a limit says so; its record is ''
-- when it holds nothing of interest), the numbers of lists that are empty, counted through all claims, and whether
-- elements were left that nobody here can take. The tokens of the jobs go up by one from the first.

local function claim_jobs(claim_count)
    local lists_before = 0
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
    while at <= #ARGV do lanes[#lanes + 1] = tonumber(next_argument()) end
    local has_paused = is_there(P .. 'paused')
    has_limits = is_there(P .. 'limits')
    has_flow = has_limits or is_there(P .. 'flow') or is_there(P .. 'closed') or is_there(P .. 'full')
    local unread = {}
    -- What was taken out of a list, and what is found out about it. All at once: a table that grows is made anew each
    -- time.
    function take_in_hand(list, element)
        local thing = {
            list = list, element = element, has_place = false, is_stranger = false, about = false, is_held = false, record = unread,
        }
        in_hand[#in_hand + 1] = thing
        return thing
    end

    function free_of(claim)
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

    -- What is known of the jobs of a batch, in a few calls for all of them: one for each would cost more than all else
    -- that is done with them. Limits may change records on the way, so that with them each is read in its turn.
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
    function hand_out(claim, number, thing, name, id, word, lane, scopes, cost)
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
                -- A job of a name that nobody here knows stays where it is; in its line, where those behind it must not
                -- overtake it.
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
            -- Nothing but strangers as far as may be looked: they go to the back, so that those behind them have their
            -- turn.
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
end

-- Writes down who has the jobs that were taken.
local function hand_over()
    if #taken == 0 then return end
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
        deliveries[last + delivery_list], deliveries[last + delivery_id] = number, id
        deliveries[last + delivery_name], deliveries[last + delivery_word] = name, word
        deliveries[last + delivery_record], deliveries[last + delivery_envelope] = interest, thing.element
    end
    for_slices(#elements, function(first, last)
        redis.call('HSET', held, unpack(elements, first, last))
        redis.call('HSET', info, unpack(infos, first, last))
    end)
    redis.call('PUBLISH', P .. 'started', table.concat(ids, '\n'))
    if has_flow and redis.call('DEL', P .. 'full') == 1 then redis.call('PUBLISH', P .. 'work', 'room') end
end
