-- Counts the members of groups that have ended, in Celery's keys, so that members in Python and Swift count together.
--
-- ARGV: where the results are (broker database, result database, '' when it is the same), what is to be done, the key of
--       the group, then
--         open      its size, its tree ('' for none), seconds to keep it (0 for ever)
--         grow      the number of further members, seconds
--         count     the member's id, its place ('' for none), its entry, seconds, a token of its own, and where to keep
--                   the outcome of the job that is about to be settled, if it completes the group ('' for nowhere), and
--                   that outcome
--         close     the token, 1 when the group has failed
--         progress
--         part      the member's place ('' for none)
--         recall    nothing more; the key is where an outcome was kept
--         forget    nothing more; the outcome is kept no longer
-- The keys, behind that of the group: .j the entries, a sorted set by place, or a list where Celery was told so; .d who
-- is among them; .s the size, and .t what was added to it; .c who completes the group, then 'done'.
-- Answers to count: nothing, or the entries and the tree for the member that is the last; to progress the number of
-- entries and the size; to part the entries with that place.
-- Atomic, so that a member counts once, and one of them completes the group.

local action, group = ARGV[3], ARGV[4]
local entries, counted, size, added, claim = group .. '.j', group .. '.d', group .. '.s', group .. '.t', group .. '.c'

local function keep(seconds)
    if seconds == '0' then return end
    for _, key in ipairs({ entries, counted, size, added, group }) do
        -- What is kept for longer stays so.
        if redis.call('TTL', key) < tonumber(seconds) then redis.call('EXPIRE', key, seconds) end
    end
end

local function is_list() return redis.call('TYPE', entries).ok == 'list' end
local function number_of_entries() return redis.call(is_list() and 'LLEN' or 'ZCARD', entries) end
local function whole_size()
    local number = tonumber(redis.call('GET', size) or '')
    return number and number + (tonumber(redis.call('GET', added) or '') or 0)
end

local function open(number, tree, seconds)
    local owner = redis.call('GET', claim)
    -- The group is over: this is a repeat.
    if owner == 'done' then return end
    if redis.call('EXISTS', size) == 0 then redis.call('SET', size, number) end
    if tree ~= '' then redis.call('SET', group, tree) end
    keep(seconds)
end

local function count(member, place, entry, seconds, token, outcome_key, outcome)
    local owner = redis.call('GET', claim)
    if owner == 'done' then return false end
    local name = member .. ':' .. (place == '' and '+inf' or place)
    if redis.call('SADD', counted, name) == 1 then
        if is_list() then redis.call('RPUSH', entries, entry)
        else redis.call('ZADD', entries, place == '' and '+inf' or place, entry) end
    end
    keep(seconds)
    if number_of_entries() ~= whole_size() or (owner and owner ~= token) then return false end
    -- Longer than it takes to notice that the worker has died and to give its job to another.
    redis.call('SET', claim, token, 'EX', 60)
    if outcome_key ~= '' then redis.call('SET', outcome_key, outcome, 'EX', 3600) end
    local all = is_list() and redis.call('LRANGE', entries, 0, -1) or redis.call('ZRANGE', entries, 0, -1)
    return { all, redis.call('GET', group) }
end

local function close(token, has_failed)
    local owner = redis.call('GET', claim)
    if owner and owner ~= token then return end
    if has_failed == '1' then
        -- Celery's programs look at the entries.
        redis.call('DEL', size)
        redis.call('EXPIRE', claim, 6)
    else
        redis.call('DEL', entries, counted, size, added)
        redis.call('SET', claim, 'done', 'EX', 300)
    end
end

local answer = false
in_database(ARGV[2], function()
    if action == 'forget' then
        redis.call('DEL', group)
        return
    end
    if action == 'recall' then
        answer = redis.call('GET', group)
        return
    end
    -- A failed write is not undone.
    local kind = redis.call('TYPE', entries).ok
    if kind ~= 'none' and kind ~= 'zset' and kind ~= 'list' then return end
    demand(counted, 'set')
    for _, key in ipairs({ size, added, claim, group }) do demand(key, 'string') end
    if action == 'open' then open(ARGV[5], ARGV[6], ARGV[7])
    elseif action == 'grow' then
        redis.call('INCRBY', added, ARGV[5])
        keep(ARGV[6])
    elseif action == 'count' then answer = count(ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11])
    elseif action == 'close' then close(ARGV[5], ARGV[6])
    elseif action == 'progress' then
        local known = whole_size()
        if known or number_of_entries() > 0 then answer = { number_of_entries(), known } end
    elseif is_list() then answer = redis.call('LRANGE', entries, 0, -1)
    else
        local place = ARGV[5] == '' and '+inf' or ARGV[5]
        answer = redis.call('ZRANGEBYSCORE', entries, place, place)
    end
end)
if ARGV[2] ~= '' then redis.call('SELECT', ARGV[1]) end
return answer
