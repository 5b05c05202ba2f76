-- Puts a job that has ended back into its queue.
--
-- ARGV: broker database, result database ('' when it is the same), id, kind (dead, stopped), queue, list, element,
--       record, result key, unique key ('' for none), its scope
-- Returns 1, or 0 when no message of the job was kept.
-- Atomic, so that the job is not requeued twice.

local id, kept = ARGV[3], P .. ARGV[4] .. ':' .. ARGV[5]
demand(kept .. ':jobs', 'hash')
demand(ARGV[6], 'list')
if ARGV[10] ~= '' then demand(P .. 'unique:' .. ARGV[10], 'string') end
if not redis.call('ZSCORE', kept, id) then return 0 end
-- Before it goes from where it was.
redis.call('LPUSH', ARGV[6], ARGV[7])
redis.call('ZREM', kept, id)
redis.call('HDEL', kept .. ':jobs', id)
redis.call('SET', P .. 'job:' .. id, ARGV[8], 'PX', waiting_record_lifetime)
if ARGV[10] ~= '' and ARGV[11] ~= 'window' then
    local holder = redis.call('GET', P .. 'unique:' .. ARGV[10])
    if not holder or string.sub(holder, string.find(holder, '\n', 1, true) + 1) == id then
        redis.call('SET', P .. 'unique:' .. ARGV[10], ARGV[11] .. '\n' .. id)
        redis.call('DEL', P .. 'unique-until:' .. ARGV[10])
    end
end
in_database(ARGV[2], function() redis.call('DEL', ARGV[9]) end)
return 1
