-- Removes the messages kept of jobs that ended long ago, or of more jobs than a queue keeps, once in ten seconds for
-- all workers together.
--
-- ARGV: now, how many dead letters a queue keeps at most, and how many cancelled or expired jobs
-- Returns 1 when it did, 0 when another worker just did.
-- Atomic, so that message and index of a job go together.

local now = time_of(ARGV[1])
pass_full_server()
if not redis.call('SET', P .. 'swept', '1', 'NX', 'PX', 10000) then return 0 end
for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
    for _, kind in ipairs({ 'dead', 'stopped' }) do
        local kept = P .. kind .. ':' .. queue
        local old = redis.call('ZRANGEBYSCORE', kept, '-inf', whole(now), 'LIMIT', 0, 500)
        local surplus = redis.call('ZCARD', kept) - #old - tonumber(ARGV[2])
        if surplus > 0 then
            for _, id in ipairs(redis.call('ZRANGE', kept, #old, #old + math.min(surplus, 500) - 1)) do
                old[#old + 1] = id
                redis.call('DEL', P .. 'job:' .. id)
            end
        end
        for _, id in ipairs(old) do
            redis.call('ZREM', kept, id)
            redis.call('HDEL', kept .. ':jobs', id)
        end
    end
end
return 1
