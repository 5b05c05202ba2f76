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
-- Its blocking commands may go on here for a while, if it cannot be heard any more: what they take goes back as well.
local handing, is_watching = P .. 'handing:' .. ARGV[2], false
local lists = redis.call('HKEYS', handing)
if #lists > 0 then
    for _, list in ipairs(lists) do
        if list ~= '' then put_back_handed(ARGV[2], list) end
    end
    redis.call('HSETNX', handing, '', whole(server_time()))
    is_watching = server_time() - tonumber(redis.call('HGET', handing, '')) < 15000000
    if not is_watching then redis.call('DEL', handing) end
end
if #held > 0 or is_watching then
    redis.call('SADD', P .. 'dying', ARGV[2])
else
    redis.call('SREM', P .. 'dying', ARGV[2])
end
if #held == 0 then redis.call('DEL', P .. 'cancel:' .. ARGV[2]) end
return { redis.call('GET', P .. 'worker:' .. ARGV[2]) or '', held }
