-- Finds the workers whose jobs are to be given to others, for a program that is no worker itself.
--
-- ARGV: now, how often the program asks, in microseconds
-- Returns {workers whose lease is over; workers whose jobs are still to be given back}
-- Atomic, so that no lease is renewed between the two looks.

local now = time_of(ARGV[1])
pass_full_server()
give_time_after_stall(now)
redis.call('SET', P .. 'pulse', whole(server_time()) .. ' ' .. ARGV[2])
return { redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(now), 'LIMIT', 0, 16), redis.call('SMEMBERS', P .. 'dying') }
