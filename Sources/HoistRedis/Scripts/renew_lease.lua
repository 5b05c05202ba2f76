-- Announces a worker, or renews its lease.
--
-- ARGV: now, worker, lease in microseconds, its description for other programs
-- Returns {1 when it has a lease, 0 when it lost it; workers whose lease is over; workers whose jobs are still to be
--          given back}
-- Atomic, so that a worker cannot renew a lease that another has just taken from it.

local now = time_of(ARGV[1])
local worker = ARGV[2]
local lease = redis.call('ZSCORE', P .. 'workers', worker)
local is_known = redis.call('EXISTS', P .. 'worker:' .. worker) == 1

pass_full_server()
give_time_after_stall(now)
redis.call('SET', P .. 'pulse', whole(server_time()) .. ' ' .. whole(tonumber(ARGV[3]) / 5))

local has_lease = 0
if lease or not is_known then
    redis.call('HSET', P .. 'leases', worker, ARGV[3])
    redis.call('ZADD', P .. 'workers', whole(now + tonumber(ARGV[3])), worker)
    redis.call('SET', P .. 'worker:' .. worker, ARGV[4], 'EX', 604800)
    has_lease = 1
end
return { has_lease, redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(now), 'LIMIT', 0, 16), redis.call('SMEMBERS', P .. 'dying') }
