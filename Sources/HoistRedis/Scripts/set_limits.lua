-- Sets limits.
--
-- ARGV: declared or set, then for each target two: the target (j:name or q:queue), its limits as a JSON array, '' to
--       take back the limits given before
-- Returns 1 when something has changed, else 0.
-- Atomic, so that `limits` always holds the limits in force: `limits:set` over `limits:declared`.

local said = P .. 'limits:' .. ARGV[1]
local has_changed = 0
for i = 2, #ARGV, 2 do
    local target = ARGV[i]
    if ARGV[i + 1] == '' then redis.call('HDEL', said, target) else redis.call('HSET', said, target, ARGV[i + 1]) end
    local counts = redis.call('HGET', P .. 'limits:set', target) or redis.call('HGET', P .. 'limits:declared', target) or '[]'
    if counts ~= (redis.call('HGET', P .. 'limits', target) or '[]') then
        has_changed = 1
        if counts == '[]' then redis.call('HDEL', P .. 'limits', target) else redis.call('HSET', P .. 'limits', target, counts) end
    end
end
if has_changed == 1 then
    -- Lines that wait for a limit may have nothing to wait for any more.
    for _, queue in ipairs(redis.call('SMEMBERS', P .. 'flow')) do
        for _, scope in ipairs(redis.call('ZRANGE', P .. 'waits:' .. queue, 0, -1)) do
            redis.call('ZADD', P .. 'waits:' .. queue, '0', scope)
        end
    end
    redis.call('PUBLISH', P .. 'work', 'limits')
end
return has_changed
