-- Takes a worker off the list. From then on its settlements, reports and claims are refused; its jobs wait to be given
-- back, by the caller or, should the caller die as well, by the next worker that renews a lease.
--
-- ARGV: now, worker, 1 when the worker resigns
-- Returns nil when its lease still runs and it does not resign; else {its description, its jobs as ids and facts of the
-- delivery in turn}
-- Atomic, so that the worker either renewed its lease before or never can.

pass_full_server()
local lease = redis.call('ZSCORE', P .. 'workers', ARGV[2])
if lease and ARGV[3] ~= '1' and tonumber(lease) > time_of(ARGV[1]) then return nil end
redis.call('ZREM', P .. 'workers', ARGV[2])
redis.call('HDEL', P .. 'leases', ARGV[2])
redis.call('DEL', P .. 'standing:' .. ARGV[2])
local held = redis.call('HGETALL', P .. 'held:' .. ARGV[2] .. ':info')
if #held > 0 then
    redis.call('SADD', P .. 'dying', ARGV[2])
else
    redis.call('SREM', P .. 'dying', ARGV[2])
    redis.call('DEL', P .. 'cancel:' .. ARGV[2])
end
return { redis.call('GET', P .. 'worker:' .. ARGV[2]) or '', held }
