-- Closes a queue for a time.
--
-- ARGV: now, queue, microseconds
-- Returns 1; 0 when it is closed for longer already.
-- Atomic, so that of two closures the longer one counts.

local closed_until = time_of(ARGV[1]) + tonumber(ARGV[3])
if closed_until <= tonumber(redis.call('HGET', P .. 'closed', ARGV[2]) or '0') then return 0 end
redis.call('HSET', P .. 'closed', ARGV[2], whole(closed_until))
return 1
