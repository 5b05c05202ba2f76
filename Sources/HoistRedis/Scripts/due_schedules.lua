-- Finds the schedules whose time has come.
--
-- ARGV: now, how many, then the groups
-- Returns {now, the time of the next one that is not due ('' for none), then five for each that is due: id, group,
-- revision, wake, body}, the longest due first in each group.
-- Atomic, so that none is read half before and half after a write.

local now, limit = time_of(ARGV[1]), tonumber(ARGV[2])
local answer, next_wake = { whole(now), '' }, nil
for i = 3, #ARGV do
    local index = P .. 'schedules-due:' .. ARGV[i]
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', whole(now), 'LIMIT', 0, limit)) do
        local fields = redis.call('HMGET', P .. 'schedule:' .. id, 'group', 'revision', 'wake', 'body')
        if fields[2] then
            answer[#answer + 1] = id
            for j = 1, 4 do answer[#answer + 1] = fields[j] end
        else
            redis.call('ZREM', index, id)
        end
    end
    local later = redis.call('ZRANGEBYSCORE', index, '(' .. whole(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if later[2] and (not next_wake or tonumber(later[2]) < next_wake) then next_wake = tonumber(later[2]) end
end
if next_wake then answer[2] = whole(next_wake) end
return answer
