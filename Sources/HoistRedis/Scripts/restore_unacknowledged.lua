-- Puts back a message that a Celery worker left unacknowledged, as kombu does: in front of its queue, marked as
-- redelivered.
--
-- ARGV: key of unacknowledged messages, key of their index, delivery tag, the entry as it was seen, then for each queue
--       that the message goes to its list and the message
-- Returns 1, or 0 when another worker put it back or the message was acknowledged.
-- Atomic, so that it is put back once.

if redis.call('HGET', ARGV[1], ARGV[3]) ~= ARGV[4] then return 0 end
demand(ARGV[2], 'zset')
for i = 5, #ARGV, 2 do demand(ARGV[i], 'list') end
for i = 5, #ARGV, 2 do push_in_front(ARGV[i], ARGV[i + 1]) end
redis.call('HDEL', ARGV[1], ARGV[3])
redis.call('ZREM', ARGV[2], ARGV[3])
return 1
