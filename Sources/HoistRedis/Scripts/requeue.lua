-- Puts a job that has ended back into its queue.
--
-- ARGV: broker database, result database ('' when it is the same), id, kind (dead, stopped), queue, list, element,
--       record, result key, unique key ('' for none), its scope
-- Returns 1, or 0 when no message of the job was kept.
-- Atomic, so that the job is not requeued twice.

local id, kept = ARGV[3], P .. ARGV[4] .. ':' .. ARGV[5]
if redis.call('ZREM', kept, id) == 0 then return 0 end
redis.call('HDEL', kept .. ':jobs', id)
redis.call('SET', P .. 'job:' .. id, ARGV[8], 'PX', waiting_record_lifetime)
if ARGV[10] ~= '' and ARGV[11] ~= 'window' then
    local holder = redis.call('GET', P .. 'unique:' .. ARGV[10])
    if not holder or string.sub(holder, string.find(holder, '\n', 1, true) + 1) == id then
        redis.call('SET', P .. 'unique:' .. ARGV[10], ARGV[11] .. '\n' .. id)
        redis.call('DEL', P .. 'unique-until:' .. ARGV[10])
    end
end
redis.call('LPUSH', ARGV[6], ARGV[7])
in_database(ARGV[2], function() redis.call('DEL', ARGV[9]) end)
return 1
