-- Changes a schedule if it is as it was read, and enqueues what it starts.
--
-- enqueue.lua stands in front as the function enqueue_jobs, whose ARGV are those of that script.
--
-- ARGV: now, id, expected revision ('' when there must be none), not before ('' for no condition), 1 when the schedule is
--       to be there ('' to remove it), group, wake ('' for never), body, how many entries of the history are kept, number
--       of entries, the entries, oldest first, then the ARGV of enqueue.lua (none when nothing is enqueued)
-- Returns {0} when the schedule is not as it was read, {1} before its time, {2, queue} when that queue is full; nothing
-- was stored then. Else {3, revision, the answer of enqueue.lua ('' when nothing was enqueued)}.
-- Atomic, so that of two programs that tick at once one enqueues the jobs, and a schedule never moves on without them.

local now, id = time_of(ARGV[1]), ARGV[2]
local key, history = P .. 'schedule:' .. id, P .. 'schedule-history:' .. id
demand(key, 'hash')
demand(history, 'list')
demand(P .. 'schedules', 'zset')
demand(P .. 'schedule-revision', 'string')
demand(P .. 'schedules-due:' .. ARGV[6], 'zset')

if (redis.call('HGET', key, 'revision') or '') ~= ARGV[3] then return { 0 } end
if ARGV[4] ~= '' and now < tonumber(ARGV[4]) then return { 1 } end

local entries = tonumber(ARGV[10])
local first_job = 11 + entries
local enqueued = ''
if #ARGV >= first_job then
    local arguments = {}
    for i = first_job, #ARGV do arguments[#arguments + 1] = ARGV[i] end
    enqueued = enqueue_jobs(arguments)
    if enqueued[1] == -1 then return { 2, enqueued[2] } end
end

local group = redis.call('HGET', key, 'group')
if group then redis.call('ZREM', P .. 'schedules-due:' .. group, id) end
-- No revision is used twice, also when a schedule is removed and put again.
local revision = redis.call('INCR', P .. 'schedule-revision')
if ARGV[5] ~= '1' then
    redis.call('DEL', key, history)
    redis.call('ZREM', P .. 'schedules', id)
    return { 3, revision, enqueued }
end
redis.call('HSET', key, 'revision', revision, 'group', ARGV[6], 'wake', ARGV[7], 'body', ARGV[8])
redis.call('ZADD', P .. 'schedules', 0, id)
if ARGV[7] ~= '' then redis.call('ZADD', P .. 'schedules-due:' .. ARGV[6], ARGV[7], id) end
for i = 1, entries do redis.call('LPUSH', history, ARGV[10 + i]) end
redis.call('LTRIM', history, 0, tonumber(ARGV[9]) - 1)
return { 3, revision, enqueued }
