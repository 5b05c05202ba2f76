-- Stores a result on a separate server of results.
--
-- ARGV: its key, its seconds (0 for ever), result, 1 when it is final
-- Returns 1, or 0 when a success is there already.
-- Atomic, so that a success is never written over.

if ARGV[4] ~= '1' and status_of(redis.call('GET', ARGV[1])) == 'SUCCESS' then return 0 end
put_result(ARGV[1], ARGV[2], ARGV[3])
return 1
