-- Puts back what the blocking command of a worker has taken out of a list, and nothing has claimed.
--
-- ARGV: worker, list
-- Returns 1.
-- Atomic, so that it is at every moment in one place.

pass_full_server()
put_back_handed(ARGV[1], ARGV[2])
return 1
