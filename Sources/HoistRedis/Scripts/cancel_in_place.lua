-- Marks a job as cancelled whose message was found in no list. Should it be in one all the same, the worker that takes
-- it out puts it aside.
--
-- ARGV: now, broker database, result database ('' when it is the same), id, record, result key ('' for none), its
--       seconds (0 for ever), result
-- Returns 1, or 0 when its record is no more.
-- Atomic, so that the unique key is free and the result published when the job counts as cancelled.

local old = redis.call('GET', P .. 'job:' .. ARGV[4])
if not old then return 0 end
release_key(old, ARGV[4], false, time_of(ARGV[1]))
redis.call('SET', P .. 'job:' .. ARGV[4], ARGV[5], 'PX', waiting_record_lifetime)
if ARGV[6] ~= '' then in_database(ARGV[3], function() put_result(ARGV[6], ARGV[7], ARGV[8]) end) end
return 1
