-- Removes jobs that have not been started from a queue, a slice in each call.
--
-- ARGV: now, queue, how many at most, then the lists of the queue
-- Returns how many were removed.
-- Atomic for the slice: each job is either complete or gone.

local now, queue, limit = time_of(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local count = 0
local function drop(id)
    local record = redis.call('GET', P .. 'job:' .. id)
    if record then
        release_key(record, id, false, now)
        redis.call('DEL', P .. 'job:' .. id)
    end
    count = count + 1
end
for i = 4, #ARGV do
    local elements = count < limit and redis.call('RPOP', ARGV[i], limit - count) or {}
    if elements and string.sub(ARGV[i], 1, #P + 5) == P .. 'line:' then count_in_line(queue, -#elements) end
    for _, element in ipairs(elements or {}) do
        local _, id = describe(element)
        drop(id or '')
    end
end
local delayed = P .. 'delayed:' .. queue
if count < limit then
    for _, id in ipairs(redis.call('ZRANGE', delayed, 0, limit - count - 1)) do
        redis.call('ZREM', delayed, id)
        redis.call('HDEL', delayed .. ':jobs', id)
        drop(id)
    end
end
return count
