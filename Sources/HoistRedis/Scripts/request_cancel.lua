-- Asks the worker that holds a job to stop it.
--
-- ARGV: worker, id
-- Returns 1, or 0 when the worker does not hold the job any more.
-- Atomic, so that the request meets the delivery it was meant for, or is not made.

if redis.call('HEXISTS', P .. 'held:' .. ARGV[1] .. ':info', ARGV[2]) == 0 then return 0 end
redis.call('SADD', P .. 'cancel:' .. ARGV[1], ARGV[2])
redis.call('PUBLISH', P .. 'work', 'cancel')
return 1
