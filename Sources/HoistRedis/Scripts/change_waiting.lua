-- Changes or ends a job that waits, if it is still where the caller saw it.
--
-- ARGV: now, broker database, result database ('' when it is the same), id, queue, the list it waits in ('' when it is
--       delayed), its element as it was seen, then
--         end, kind (dead, stopped), keep until, record, result key ('' for none), its seconds (0 for ever), result
--         move, new list, new element, due ('' for now), record; it keeps its place where the list stays the same
-- Returns 1 when the job was there; else 0, and nothing has changed.
-- Atomic, so that a worker gets the job as it was or as it is, never both and never none.

local now = time_of(ARGV[1])
local id, queue, list, element = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local delayed = P .. 'delayed:' .. queue
local place
if list == '' then
    local value = redis.call('HGET', delayed .. ':jobs', id)
    if not value or string.sub(value, string.find(value, '\n', 1, true) + 1) ~= element then return 0 end
else
    -- From the end that is served next, where the caller is likely to have found it.
    place = redis.call('LPOS', list, element, 'RANK', -1)
    if not place then return 0 end
end

demand(delayed, 'zset')
demand(delayed .. ':jobs', 'hash')
local line_prefix = P .. 'line:'
local function is_line(key) return string.sub(key, 1, #line_prefix) == line_prefix end
local function remove()
    if list == '' then
        redis.call('ZREM', delayed, id)
        redis.call('HDEL', delayed .. ':jobs', id)
    else
        redis.call('LREM', list, -1, element)
        if is_line(list) then count_in_line(queue, -1) end
    end
end

if ARGV[8] == 'end' then
    local kind, keep_until, record = ARGV[9], ARGV[10], ARGV[11]
    local kept = P .. kind .. ':' .. queue
    demand(kept, 'zset')
    demand(kept .. ':jobs', 'hash')
    demand(P .. 'permits', 'hash')
    demand(P .. 'job:' .. id, 'string')
    redis.call('HSET', kept .. ':jobs', id, element)
    redis.call('ZADD', kept, keep_until, id)
    remove()
    local old = redis.call('GET', P .. 'job:' .. id)
    redis.call('SET', P .. 'job:' .. id, record, 'PX', math.max(1, math.ceil((tonumber(keep_until) - now) / 1000)))
    if old then release_key(old, id, false, now) end
    if release_permits(id, false) then redis.call('PUBLISH', P .. 'work', 'ready') end
    if ARGV[12] ~= '' then
        in_database(ARGV[3], function()
            if ARGV[13] == '0' then redis.call('SET', ARGV[12], ARGV[14]) else redis.call('SETEX', ARGV[12], ARGV[13], ARGV[14]) end
            redis.call('PUBLISH', ARGV[12], ARGV[14])
        end)
    end
    return 1
end

local target, changed, due, record = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
if due ~= '' and tonumber(due) > now then
    redis.call('HSET', delayed .. ':jobs', id, target .. '\n' .. changed)
    redis.call('ZADD', delayed, due, id)
    if list ~= '' then remove() end
    redis.call('SET', P .. 'job:' .. id, record)
    redis.call('PUBLISH', P .. 'work', 'due')
else
    if list == target then
        redis.call('LSET', list, place, changed)
    else
        demand(target, 'list')
        redis.call('LPUSH', target, changed)
        if is_line(target) then count_in_line(queue, 1) end
        remove()
    end
    redis.call('SET', P .. 'job:' .. id, record, 'PX', waiting_record_lifetime)
end
return 1
