-- Gives an expiry to the records of plain jobs that have waited for a day: enqueue_plain.lua stores them without one. Called by workers and
-- producers alike, for where only Python's workers run nobody else does. Once in ten seconds for all of them together.
--
-- ARGV: now
-- Returns 1 when it looked at some keys, 0 when somebody else just did.
-- Atomic, so that no record is given an expiry that its job has just got another one for.

local now = time_of(ARGV[1])
pass_full_server()
if not redis.call('SET', P .. 'expired', '1', 'NX', 'PX', 10000) then return 0 end
-- So many keys at a time that all of the database have had their turn within a day, however fast such records come.
local some = math.max(500, math.min(50000, math.ceil(redis.call('DBSIZE') / 4000)))
local pattern = string.gsub(P, '[%*%?%[%]\\]', '\\%0') .. 'job:*'
local found = redis.call('SCAN', redis.call('GET', P .. 'expired:until') or '0', 'MATCH', pattern, 'COUNT', some)
redis.call('SET', P .. 'expired:until', found[1])
for _, key in ipairs(found[2]) do
    if redis.call('PTTL', key) == -1 then
        local since = string.match(redis.call('GET', key), '"s":"waiting".-,"t":(%d+)')
        if since and tonumber(since) < now - 86400000000 then redis.call('PEXPIRE', key, waiting_record_lifetime) end
    end
end
return 1
