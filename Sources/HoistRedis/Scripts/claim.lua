-- New jobs for the worker, out of the lists of its queues: the part of worker_turn.lua that reads
--       the number of claims (read by standing.lua before), and for each: queue, free slots of the queue ('' for no
--       limit),
--         number of lists, the lists, number of names, and for each name: the name and the number of its lane
--       the free slots of each lane
-- Answers with what TurnWire.Delivery names for each job (its word is the number of retries and a letter: n normal, t
-- look at its times, u it cannot be read, k find out what it belongs to, d end it: a limit says so, r end it: it was
-- revoked before anybody knew it; its record is '' when it holds nothing of interest), the numbers of lists that are empty, counted through all claims, and whether
-- elements were left that nobody here can take. The tokens of the jobs go up by one from the first.

-- Stores the jobs that begin as STARTED, as Celery does, for those who ask.
local function store_started()
    in_database(result_db, function()
        for _, job in ipairs(taken) do
            local id, word, element = job[1], string.sub(job[6], -1), job[7].element
            if word == 't' then
                local _, _, _, _, eta, expires = describe(element)
                local due, last = microseconds_of(eta), microseconds_of(expires)
                if not (due and due > now) and not (last and last <= now) then word = 'n' end
            end
            if word == 'n' and not string.find(element, '"ignore_result": ?true') then
                put_result(turn.result_prefix .. id, turn.started_seconds, '{"status": "STARTED", "result": ' .. turn.started
                    .. ', "traceback": null, "children": [], "date_done": null, "task_id": ' .. cjson.encode(id) .. '}')
            end
        end
    end)
    if result_db ~= '' then redis.call('SELECT', broker_db) end
end

-- Writes down who has the jobs that were taken.
-- Returns their ids; nil for none.
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
    if turn.started ~= '' then store_started() end
    return ids
end

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
    -- What was found in a list, and what is known of it. All at once: a table that grows is made anew each time.
    --   has_place  it is elsewhere now, and comes out of the list it was found in
    --   is_out     it is out of that list already
    function take_in_hand(list, element)
        local thing = {
            list = list, element = element, has_place = false, is_out = false, is_stranger = false, about = false,
            is_held = false, record = unread,
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

    -- Elements of a list, counted from the end that is served next: `count` of them behind the first `offset`. They
    -- stay where they are until it is known what becomes of them.
    local function look_at(list, offset, count)
        local elements = redis.call('LRANGE', list, -(offset + count), -(offset + 1))
        local batch, last = {}, #elements
        for i = last, 1, -1 do
            local element = elements[i]
            batch[last - i + 1] = take_in_hand(list, element)
        end
        return batch
    end

    -- What is known of the jobs of a batch, in a few calls for all of them: one for each would cost more than all else
    -- that is done with them. Limits may change records on the way, so that with them each is read in its turn.
    local function look_up(claim, batch)
        local known, ids, keys = {}, {}, {}
        for _, thing in ipairs(batch) do
            local element = thing.element
            -- Strangers are told by their name alone, for it would cost much to read all of a large message.
            local name = not is_ours(element) and name_in(element)
            if not name or claim.lanes[name] then
                thing.about = { describe(element) }
                name = thing.about[1]
            end
            -- A name that is no text can be nobody's.
            if name and not claim.lanes[name] and is_text(name) and not string.find(name, '%c') then
                thing.about, thing.is_stranger = { name }, true
            end
            local id = thing.about and thing.about[2]
            if id and claim.lanes[name] then
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

    -- Puts a job among the delayed ones for a moment.
    local function set_aside(claim, number, thing, id)
        local delayed = P .. 'delayed:' .. claim.queue
        demand(delayed, 'zset')
        demand(delayed .. ':jobs', 'hash')
        if redis.call('HEXISTS', delayed .. ':jobs', id) == 1 then return end
        redis.call('HSET', delayed .. ':jobs', id, claim.lists[number] .. '\n' .. thing.element)
        redis.call('ZADD', delayed, whole(now + 1000000), id)
        redis.call('PERSIST', P .. 'job:' .. id)
        note_due(now + 1000000)
        thing.has_place = true
    end

    -- Gives a job to the worker, unless it turns out to have ended, or must not run beside another one.
    function hand_out(claim, number, thing, name, id, word, lane, scopes, cost)
        local element = thing.element
        local starts = string.sub(word, -1) ~= 'k'
        local record = thing.record
        if record == unread then record = redis.call('GET', P .. 'job:' .. id) end
        local is_known = string.sub(word, -1) ~= 'u'
        -- Of the jobs whose worker has died a worker has one at a time, so that the one that kills its workers takes no
        -- other with it.
        local is_suspect = record and string.find(record, '"lost":[1-9]')
        if is_suspect and not haul.takes_suspects then
            -- Where there are very many of them they let the others pass.
            haul.refused = haul.refused + 1
            if haul.refused > 50 then set_aside(claim, number, thing, id) end
            return
        end
        if not record then
            record = is_known and record_of(element) or ''
            local result = is_known and result_of(id)
            local state = status_of(result)
            -- Not one that was revoked or expired under this id before: another producer may use an id again.
            if state == 'REVOKED' and string.find(result, '"unseen":true', 1, true) then word = string.gsub(word, '%a$', 'r') end
            if state == 'SUCCESS' then
                if is_copy(element) then
                    -- A copy of a job that has succeeded is not run again.
                    haul.copies[#haul.copies + 1] = id
                    thing.has_place = true
                    if release_permits(id, false) then has_released = true end
                    return
                end
                -- Another producer put a job under this id once more: its callers wait for the result of this one.
                in_database(result_db, function() redis.call('DEL', turn.result_prefix .. id) end)
                if result_db ~= '' then redis.call('SELECT', broker_db) end
            end
            if record ~= '' and starts then release_key(record, id, true, now) end
        elseif string.byte(record, 1) == 99 and (string.find(element, '"step":{"id":', 1, true) or string.find(element, '"group": ?"')) then
            -- Others count its end: the worker says so.
            word = string.gsub(word, '%a$', 'r')
        elseif string.byte(record, 1) == 99 then
            -- It was cancelled where it could not be taken out of the list.
            local kept, left = P .. 'stopped:' .. claim.queue, redis.call('PTTL', P .. 'job:' .. id)
            demand(kept, 'zset')
            demand(kept .. ':jobs', 'hash')
            redis.call('ZADD', kept, whole(now + math.max(left, 1000) * 1000), id)
            redis.call('HSET', kept .. ':jobs', id, element)
            redis.call('SET', P .. 'job:' .. id, 'p' .. string.sub(record, 2), 'KEEPTTL')
            thing.has_place = true
            if release_permits(id, false) then has_released = true end
            return
        elseif string.byte(record, 1) == 120 and starts then
            release_key(record, id, true, now)
        end
        if is_suspect then haul.takes_suspects = false end
        if scopes then enter(scopes, id, cost, now) end
        is_taken[id] = true
        thing.is_taken = true
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
        local name, id, retries, timed, eta, expires = unpack(thing.about or {}, 1, 6)
        local word = timed and 't' or 'n'
        local lane = not thing.is_stranger and name and claim.lanes[name]
        if thing.is_stranger then
            -- A job of a name that nobody here knows stays where it is; in its line, where those behind it must not
            -- overtake it.
            if has_limits and is_ordered(claim.queue, name) and (partition_of(thing.element) or '') ~= '' then
                local of_order, its_id = describe(thing.element)
                if of_order then passes_limits(claim, list, thing, name, its_id, false) end
            end
            return
        end
        if not lane then
            -- It cannot be read here: the worker that asked finds out why, and puts it aside.
            word, retries, name = 'u', 0, ''
            id = 'unreadable-' .. redis.call('INCR', P .. 'token')
            for _, candidate in pairs(claim.lanes) do lane = candidate end
        end
        -- Of two messages of one id the second waits for the first.
        if is_taken[id] or thing.is_held then return end
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

    -- How many elements to look at at once where the next may be larger than those before: as many as fit by the
    -- average of the list, for a list cannot be asked how large its elements are.
    local function sized_step(list, length)
        local size = redis.pcall('MEMORY', 'USAGE', list)
        if type(size) ~= 'number' then return 16 end
        return math.max(1, math.floor(haul.byte_limit / math.max(1, size / length)))
    end

    -- Looks at a list from the end that is served next, as far as there is room for its jobs.
    -- Returns how many elements stay.
    local function claim_from(claim, number, list)
        local length = redis.call('LLEN', list)
        -- Who takes turns must be known before anybody's turn comes.
        local looks_ahead = has_limits and claim.takes_turns
        local offset, looked, step, stay, waiting, bytes, largest = 0, 0, 1, 0, 0, 0, 0
        -- Strangers in a row from the end, the first and the last of them; how many of them were known before.
        local row, is_row, remembered, first, last = 0, true, 0, nil, nil
        -- Where those end that were known, with others in front of them since; from which place on all are known; how
        -- many were passed over.
        local resume, known_from, skipped, keeps_memory, has_asked, since = nil, 0, 0, false, false, now
        while offset < length do
            local want = looks_ahead and 200 or free_of(claim)
            if want <= 0 or claim.is_blocked or (looks_ahead and waiting >= 200) then break end
            if stay > 0 then want = math.max(want, 50) end
            local room = math.min(haul.bytes_left, haul.byte_limit - bytes)
            want = math.min(want, step, length - offset, scan_limit - looked)
            if largest > 0 then want = math.min(want, math.max(1, math.floor(room / largest))) end
            if want <= 0 or room <= 0 then
                -- Where this turn has changed nothing, and has found out nothing, the next one would not either.
                if stay - skipped < looked or (is_row and row > remembered) then has_more = true end
                break
            end
            if want > 4 then want = math.min(want, sized_step(list, length)) end
            step = math.min(step * 16, 256)
            local batch = look_at(list, offset, want)
            if #batch == 0 then break end
            look_up(claim, batch)
            for i, thing in ipairs(batch) do
                local size = #thing.element
                thing.offset = offset
                offset, looked = offset + 1, looked + 1
                bytes, largest = bytes + size, math.max(largest, size)
                take(claim, number, list, thing)
                if not thing.has_place and not thing.is_taken then
                    stay = stay + 1
                    if not thing.is_stranger then
                        is_row, waiting = false, waiting + 1
                    elseif is_row then
                        row, last = row + 1, thing.element
                        first = first or last
                    end
                else
                    haul.bytes_left = haul.bytes_left - size
                    haul.gone[list] = haul.gone[list] or { in_a_row = 0, rest = {} }
                    if stay == 0 then
                        haul.gone[list].in_a_row = haul.gone[list].in_a_row + 1
                    else
                        table.insert(haul.gone[list].rest, thing)
                    end
                end
                -- The rest of the batch stays where it is, unseen.
                if haul.bytes_left <= 0 or bytes >= haul.byte_limit then break end
            end
            if row > 0 and not has_asked then
                has_asked = true
                local count, stored, read_at, is_same = known_strangers(claim, list, first)
                since = read_at or now
                if count and is_same and offset == 1 then
                    row, offset, stay, remembered, skipped = count, count, count, count, count - 1
                elseif count and count > offset then
                    resume, known_from = count, count - stored
                end
            end
            -- All that have come in front of those that are known were looked at.
            if resume and offset >= known_from then
                if resume > offset then
                    local passed = resume - offset
                    stay, skipped, offset = stay + passed, skipped + passed, resume
                    if is_row then
                        row, last = row + passed, redis.call('LINDEX', list, -resume)
                    else
                        keeps_memory = true
                    end
                end
                resume = nil
            end
        end
        if row > 0 and row ~= remembered and not keeps_memory and (is_row or not resume) then
            remember_strangers(claim, list, row, first, last, since)
        end
        return stay
    end

    -- What no message is.
    local gone_mark = 'hoist:gone:' .. worker .. ':' .. whole(now)
    -- Takes what has gone elsewhere out of the lists in which it was found.
    local function clear_lists(is_handed_over)
        for list, things in pairs(haul.gone) do
            if is_handed_over then
                -- Marked each in its place, for another element may be the same, and removed in one pass.
                for _, thing in ipairs(things.rest) do redis.call('LSET', list, -(thing.offset + 1), gone_mark) end
                if things.in_a_row > 0 then redis.call('LTRIM', list, 0, -(things.in_a_row + 1)) end
                if #things.rest > 0 then redis.call('LREM', list, -#things.rest, gone_mark) end
            end
        end
        if is_handed_over then return end
        for _, thing in ipairs(in_hand) do
            if thing.has_place and not thing.is_out then redis.call('LREM', thing.list, -1, thing.element) end
        end
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
        demand(delayed .. ':jobs', 'hash')
        for _, id in ipairs(due) do
            local value = redis.call('HGET', delayed .. ':jobs', id)
            local line = value and string.find(value, '\n', 1, true)
            local list = line and string.sub(value, 1, line - 1)
            if list and not can_hold_messages(list) then
                -- Until the key is put right it waits here, and the others go on.
                redis.call('ZADD', delayed, 'XX', whole(now + 5000000), id)
            else
                if list then
                    redis.call('LPUSH', list, string.sub(value, line + 1))
                    redis.call('PEXPIRE', P .. 'job:' .. id, waiting_record_lifetime)
                end
                redis.call('ZREM', delayed, id)
                redis.call('HDEL', delayed .. ':jobs', id)
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
                    local things = haul.gone[other]
                    if redis.call('LLEN', other) > (things and things.in_a_row + #things.rest or 0) then has_more = true end
                end
                return
            end
            -- Where there is no more room to read, the list may hold more.
            if left == 0 and haul.bytes_left > 0 then
                empty[#empty + 1] = number
            elseif haul.bytes_left <= 0 then
                has_more = true
            end
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

    local has_claimed, complaint = pcall(function()
        claim_all()
        local ids = hand_over()
        clear_lists(true)
        if ids then
            redis.call('PUBLISH', P .. 'started', table.concat(ids, '\n'))
            if has_flow and redis.call('DEL', P .. 'full') == 1 then redis.call('PUBLISH', P .. 'work', 'room') end
        end
    end)
    if not has_claimed then
        for _, job in ipairs(taken) do release_permits(job[1], true) end
        clear_lists(false)
        -- What was out of its line goes back, in the order in which it came.
        for i = #in_hand, 1, -1 do
            local thing = in_hand[i]
            if thing.is_out and not thing.has_place then
                redis.call('RPUSH', thing.list, thing.element)
                if thing.counted then count_in_line(thing.counted, 1) end
            end
        end
        -- Lines that were on their way, or were empty for want of what has just gone back.
        for _, place in pairs(lines_at_hand) do
            local queue, line = unpack(place)
            redis.call('SADD', P .. 'lines:' .. queue, line)
            redis.call('SADD', P .. 'flow', queue)
            redis.call('RPUSH', P .. 'turn:' .. queue, line)
        end
        taken, deliveries = {}, {}
        problem = type(complaint) == 'table' and complaint.err or tostring(complaint)
    end
end
