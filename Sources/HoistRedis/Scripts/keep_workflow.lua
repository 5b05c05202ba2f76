-- Stores a workflow that begins, or notes that one has ended.
--
-- ARGV: now, id, then
--         begin   name, created, body, milliseconds to keep it
--         end     state, ended, milliseconds to keep it
-- Atomic, so that what has ended stays so: a cancelled workflow does not succeed.

local key, all = P .. 'workflow:' .. ARGV[2], P .. 'workflows'
if ARGV[3] == 'begin' then
    if redis.call('EXISTS', key) == 1 then return 0 end
    redis.call('HSET', key, 'name', ARGV[4], 'state', 'running', 'created', ARGV[5], 'body', ARGV[6])
    redis.call('PEXPIRE', key, ARGV[7])
    redis.call('ZADD', all, ARGV[5], ARGV[2])
    -- Those that are surely forgotten: twice as old as one may become.
    redis.call('ZREMRANGEBYSCORE', all, '-inf', whole(tonumber(ARGV[5]) - 2 * tonumber(ARGV[7]) * 1000))
    return 1
end
local state = redis.call('HGET', key, 'state')
-- A step that is given another life may turn a failure into a success.
if state ~= 'running' and not (state == 'failed' and ARGV[4] == 'succeeded') then return 0 end
redis.call('HSET', key, 'state', ARGV[4], 'ended', ARGV[5])
if ARGV[6] == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ARGV[6]) end
return 1
