-- Gives an expiry to the records of plain jobs that have waited for a day: enqueue_plain.lua stores them without one.
-- Workers and producers call it alike, because where only Python's workers run no Hoist worker calls it. It runs once
-- in ten seconds for all programs together.
--
-- ARGV: now
-- Returns 1 when it looked at some keys, 0 when another program just did.
-- Atomic, so that it does not replace an expiry that a record has just got.

local now = time_of(ARGV[1])
pass_full_server()
if not redis.call('SET', P .. 'expired', '1', 'NX', 'PX', 10000) then return 0 end
-- Enough keys at a time for a pass through the whole database within a day, however fast such records come.
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
