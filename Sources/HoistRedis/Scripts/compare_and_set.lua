-- Reads a stored value, or changes it if it is the expected one.
--
-- ARGV: now, key, then
--         read
--         set, 1 when a value is expected ('' for none), the expected value, 1 when a value is to be there ('' to remove
--           it), the value, its lifetime in microseconds ('' for ever)
-- Returns the value, or nil when there is none; for set 1, or 0 when another value is there.
-- Atomic, so that of two programs that change a value at once one succeeds.

local now, key = time_of(ARGV[1]), ARGV[2]
local stored = redis.call('GET', key)
if stored then
    -- In front of the value is the time when it expires, by the script's own time, which a test moves.
    local line = string.find(stored, '\n', 1, true)
    local expires = tonumber(string.sub(stored, 1, line - 1))
    stored = (not expires or expires > now) and string.sub(stored, line + 1)
end
if ARGV[3] == 'read' then return stored end
if ARGV[4] == '1' then
    if stored ~= ARGV[5] then return 0 end
elseif stored then
    return 0
end
if ARGV[6] ~= '1' then
    redis.call('DEL', key)
elseif ARGV[8] == '' then
    redis.call('SET', key, '\n' .. ARGV[7])
else
    redis.call('SET', key, whole(now + tonumber(ARGV[8])) .. '\n' .. ARGV[7], 'PX', math.ceil(tonumber(ARGV[8]) / 1000) + 60000)
end
return 1
