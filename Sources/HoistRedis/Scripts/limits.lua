-- Limits on the start of jobs. Stands in front of the scripts that need it, after common.lua.
--
-- A job that a limit holds up waits in a line, with the other jobs of its partition under the same limits, so that a
-- line is held up as a whole. A line is in one of two places: among the lines whose turn comes (`turn:`), or behind the
-- scope of a limit (`behind:`). `waits:` holds the time of the next look at a scope: a rate is looked at when it allows
-- a start, a number of running jobs when one of them ends, and after ten seconds in case that end was missed. No script
-- walks through the waiting jobs: the cost of a claim depends on the jobs that it takes, not on those that wait.

local function line_key(list, line) return P .. 'line:' .. list .. '\n' .. line end

-- The state in the result of a job. Set by scripts that know where results are.
local state_of_result

-- Most calls meet no limit, and creating these functions would cost them more than all other work.
local partition_of, has_limit_with, has_partitions, is_ordered, scopes_of, held_up
local enter, give_rates_back, cancel_oldest, has_cancelling_limits, cancel_older
local function know_limits()
    local limits_by_target
    local function limits_for(target)
        if not limits_by_target then
            limits_by_target = {}
            local flat = redis.call('HGETALL', P .. 'limits')
            for i = 1, #flat, 2 do limits_by_target[flat[i]] = cjson.decode(flat[i + 1]) end
        end
        return limits_by_target[target] or {}
    end

    -- The name under which a kind of job has limits, whichever alias the job has.
    local names = {}
    local function canonical(name)
        if not names[name] then
            limits_for('')
            -- Limits that were set for the alias itself apply to the alias.
            names[name] = not limits_by_target['j:' .. name] and redis.call('HGET', P .. 'aliases', name) or name
        end
        return names[name]
    end

    -- The partition of a job (nil when its message names none), and its cost.
    function partition_of(element)
        local message = parsed(element)
        local hoist = message and message.headers.hoist
        if type(hoist) ~= 'table' then return nil, 1 end
        -- The sender of a message may write anything there.
        local cost = tonumber(hoist.cost) or 1
        cost = cost ~= cost and 1 or math.min(math.max(cost, 0), 1000000000)
        return type(hoist.partition) == 'string' and hoist.partition or nil, cost
    end

    -- Whether a queue, or a kind of job in it, has a limit whose `member` has this value.
    function has_limit_with(queue, name, member, value)
        for _, target in ipairs({ 'q:' .. queue, 'j:' .. canonical(name) }) do
            for _, limit in ipairs(limits_for(target)) do
                if limit[member] == value then return true end
            end
        end
        return false
    end

    -- Whether the partition of a job makes a difference, and whether the jobs of a partition keep their order.
    function has_partitions(queue, name) return has_limit_with(queue, name, 'w', 'p') end
    function is_ordered(queue, name) return has_limit_with(queue, name, 'k', 'ordered') end

    -- The scopes that a job must pass, whether it takes turns with other partitions, and the line that it would wait
    -- in.
    function scopes_of(queue, name, partition, worker)
        local scopes, takes_turns, has_own, is_ordered = {}, false, false, false
        name = canonical(name)
        for _, target in ipairs({ 'q:' .. queue, 'j:' .. name }) do
            for number, limit in ipairs(limits_for(target)) do
                if limit.w ~= 'p' or partition ~= '' then
                    local id = target
                    if limit.w == 'p' then id = id .. '\n=' .. partition end
                    if limit.k == 'rate' then id = id .. '\n#' .. number end
                    if limit.k == 'ordered' then id = id .. '\n!' end
                    if limit.w == 'w' then id = id .. '\n' .. worker end
                    if limit.k == 'fair' then takes_turns = true else scopes[#scopes + 1] = { id = id, limit = limit } end
                    if string.byte(target, 1) == 106 then has_own = true elseif limit.k == 'ordered' then is_ordered = true end
                end
            end
        end
        -- Where a queue is ordered all kinds of a partition wait in one line.
        return scopes, takes_turns, partition .. '\n' .. (has_own and not is_ordered and name or '')
    end

    local function most_running(limit) return limit.k == 'ordered' and 1 or limit.n end

    -- Whether a job that holds the place of an ordered partition, and is with no worker, will not come back for it.
    local function is_gone(id)
        local record = redis.call('GET', P .. 'job:' .. id)
        -- Cancelled where it waits; or finished by a worker that is not Hoist's and knows nothing of places.
        if not record or string.byte(record, 1) == 99 then return true end
        local state = state_of_result and state_of_result(id)
        return state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED'
    end

    -- The time of the next look at a scope that does not let the job start now; nil when the scope lets it start.
    function held_up(scope, id, cost, now)
        local limit = scope.limit
        if limit.k == 'rate' then
            if cost == 0 then return nil end
            local last = tonumber(redis.call('GET', P .. 'rate:' .. scope.id) or '0')
            local start = last - (limit.burst - 1) * limit.per / limit.n
            return start > now and start or nil
        end
        local active = P .. 'active:' .. scope.id
        if redis.call('ZCARD', active) < most_running(limit) or redis.call('ZSCORE', active, id) then return nil end
        -- A job that has been counted for long may have ended unnoticed, for instance when its queue was purged.
        local oldest = redis.call('ZRANGE', active, 0, 0, 'WITHSCORES')
        if tonumber(oldest[2]) < now - 10000000 and not holder_of_job(oldest[1])
            and (limit.k ~= 'ordered' or is_gone(oldest[1])) then
            release_permits(oldest[1], false)
            redis.call('ZREM', active, oldest[1])
            return nil
        end
        return now + 10000000
    end

    -- Counts a job that starts.
    function enter(scopes, id, cost, now)
        local permits = {}
        for _, scope in ipairs(scopes) do
            local limit = scope.limit
            if limit.k == 'rate' then
                local key = P .. 'rate:' .. scope.id
                -- At most a century ahead: larger numbers are not exact any more.
                local last = math.max(now, tonumber(redis.call('GET', key) or '0')) + cost * limit.per / limit.n
                last = math.min(last, now + 3e15)
                redis.call('SET', key, whole(last), 'PX', whole(math.ceil((last - now) / 1000) + 60000))
            else
                redis.call('ZADD', P .. 'active:' .. scope.id, whole(now), id)
                permits[#permits + 1] = { scope.id, limit.k == 'ordered' }
            end
        end
        if #permits > 0 then redis.call('HSET', P .. 'permits', id, cjson.encode(permits)) end
    end

    -- Gives the rates back that a job used up which was handed out and has not started.
    function give_rates_back(queue, element, worker)
        local name = describe(element)
        if not name then return end
        local partition, cost = partition_of(element)
        for _, scope in ipairs(scopes_of(queue, name, partition or '', worker)) do
            local key, limit = P .. 'rate:' .. scope.id, scope.limit
            local last = limit.k == 'rate' and redis.call('GET', key)
            if last then redis.call('SET', key, whole(tonumber(last) - cost * limit.per / limit.n), 'KEEPTTL') end
        end
    end

    -- Asks the job that has been running longest to stop. It may be one that this very script hands out.
    function cancel_oldest(scope, taken, taker)
        local oldest = redis.call('ZRANGE', P .. 'active:' .. scope.id, 0, 0)[1]
        local worker = oldest and (taken and taken[oldest] and taker or holder_of_job(oldest))
        if worker and redis.call('SADD', P .. 'cancel:' .. worker, oldest) == 1 then redis.call('PUBLISH', P .. 'work', 'cancel') end
    end

    function has_cancelling_limits()
        limits_for('')
        for _, limits in pairs(limits_by_target) do
            for _, limit in ipairs(limits) do
                if limit.full == 'cancel' then return true end
            end
        end
        return false
    end

    -- Called at an enqueue: where only the newest job counts, a worker with no free slot would not see that a newer one
    -- has come.
    function cancel_older(queue, element)
        local name = describe(element)
        if not name then return end
        for _, scope in ipairs((scopes_of(queue, name, partition_of(element) or '', ''))) do
            if scope.limit.full == 'cancel' and redis.call('ZCARD', P .. 'active:' .. scope.id) >= scope.limit.n then cancel_oldest(scope) end
        end
    end
end
