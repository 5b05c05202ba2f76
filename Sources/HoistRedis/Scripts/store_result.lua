-- Stores a result by itself: on a server of its own, or of a job that this broker does not hold.
--
-- ARGV: its key, its seconds (0 for ever), the result, 1 when it is final, and where the results are in the broker's
--       server: broker database, result database ('' when it is the same), 1 to remove the result in place of storing it
-- Returns 1, or 0 when there is a success already.
-- Atomic, so that a success is never written over.

local stored = 0
in_database(ARGV[6] or '', function()
    if ARGV[4] ~= '1' and status_of(redis.call('GET', ARGV[1])) == 'SUCCESS' then return end
    if ARGV[7] == '1' then redis.call('DEL', ARGV[1]) else put_result(ARGV[1], ARGV[2], ARGV[3]) end
    stored = 1
end)
if ARGV[6] and ARGV[6] ~= '' then redis.call('SELECT', ARGV[5]) end
return stored
