-- Before a worker watches a list: what its blocking command takes out of the list is found, and put back, should the worker die with it.
--
-- ARGV: worker, list
-- Returns 1; 0 when the worker has no lease any more, and may not watch.
-- Atomic, so that whoever gives the jobs of a dead worker back knows all lists that it watches.

pass_full_server()
if not redis.call('ZSCORE', P .. 'workers', ARGV[1]) then return 0 end
redis.call('HSET', P .. 'handing:' .. ARGV[1], ARGV[2], '')
put_back_handed(ARGV[1], ARGV[2])
return 1
