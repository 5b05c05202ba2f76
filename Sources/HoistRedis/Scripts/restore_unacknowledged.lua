-- Puts back a message that a Celery worker left unacknowledged, as kombu does: in front of its queue, marked as
-- redelivered.
--
-- ARGV: key of unacknowledged messages, key of their index, delivery tag, the entry as it was seen, list, message
-- Returns 1, or 0 when another worker put it back or the message was acknowledged.
-- Atomic, so that it is put back once.

if redis.call('HGET', ARGV[1], ARGV[3]) ~= ARGV[4] then return 0 end
redis.call('HDEL', ARGV[1], ARGV[3])
redis.call('ZREM', ARGV[2], ARGV[3])
redis.call('RPUSH', ARGV[5], ARGV[6])
return 1
