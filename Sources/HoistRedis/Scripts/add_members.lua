-- Adds members to sets, also on a server that is full: a worker that announces itself is about to make room.
--
-- ARGV: key and member in turn
-- Returns 1.
-- Atomic, so that no queue is announced by halves.

pass_full_server()
for i = 1, #ARGV, 2 do redis.call('SADD', ARGV[i], ARGV[i + 1]) end
return 1
