-- Hands out the job that has just come into a list, to a worker whose claims wait, see worker_turn.lua. Only a plain
-- one: everything else is for worker_turn.lua, which the worker then calls. Stands alone: sent behind the command that
-- blocks until there is a job, it is what an idle server does first.
--
-- KEYS: the prefix of Hoist's own keys
-- ARGV: worker, queue, list, the epoch that the caller's connection belongs to
-- Returns 0 when the worker must ask, 1 when the list is empty: another worker was faster; else {how often the claims
--       have been carried out and their number, as worker_turn.lua tells it, their version if they still wait ('' when
--       not), token, id, name, element, 1 when there is more in the list}
-- Atomic, so that the job is either in its list or with the worker.

local P, worker, queue, list = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local standing = P .. 'standing:' .. worker
local waiting = redis.call('GET', standing)
if not waiting then return 0 end
local element = redis.call('LINDEX', list, -1)
if not element then return 1 end
local name, id = string.match(element,
    '^{"headers":{"lang":"swift","task":"([^"\\]*)","id":"([^"\\]*)","retries":0,"eta":null,"expires":null[,}]')
if not name or #id > 1024 or string.find(id, '[\128-\255]') then return 0 end
local line = string.find(waiting, '\n', 1, true)
local claims = cmsgpack.unpack(string.sub(waiting, line + 1))
-- The worker has given up the connection that this came over, and would not hear the answer.
if claims.epoch ~= ARGV[4] then return 0 end
local lane = claims.lane_of[queue .. '\n' .. name]
local free = claims.free_of_queue[queue] or 1
if not lane or claims.lanes[lane] <= 0 or free <= 0 then return 0 end
if redis.call('EXISTS', P .. 'cancel:' .. worker, P .. 'permits', P .. 'limits', P .. 'flow', P .. 'closed', P .. 'full', P .. 'paused') > 0 then
    return 0
end
local time, lease = redis.call('TIME'), redis.call('ZSCORE', P .. 'workers', worker)
local now = string.format('%.0f', time[1] * 1000000 + time[2])
if not lease or tonumber(lease) <= tonumber(now) then return 0 end
local held = P .. 'held:' .. worker
local record = redis.call('GET', P .. 'job:' .. id)
-- Cancelled, with a unique key, or lost with a worker before.
if not record or string.byte(record, 1) ~= 112 or string.find(record, '"lost":', 1, true) then return 0 end

-- A write that needs no memory, first: after it a server that is full lets the others pass.
redis.call('DEL', P .. 'none')
-- Of two messages of one id the second waits for the first.
if redis.call('HEXISTS', held .. ':info', id) == 1 then return 0 end
local token = redis.call('INCR', P .. 'token')
-- What may fail comes first, and the job leaves its list last. Not by RPOP, whose answer would carry the message once
-- more.
redis.call('HSET', held, id, element)
redis.call('HSET', held .. ':info', id, token .. '\n' .. now .. '\n' .. list .. '\n' .. record)
redis.call('LTRIM', list, 0, -2)
redis.call('PUBLISH', P .. 'started', id)

claims.lanes[lane] = claims.lanes[lane] - 1
if claims.free_of_queue[queue] then claims.free_of_queue[queue] = free - 1 end
local number, times = string.match(waiting, '^(%d+)%.(%d+)\n')
local moment, version = number .. '.' .. times + 1, ''
for _, slots in ipairs(claims.lanes) do
    if slots > 0 then version = moment end
end
if version ~= '' then redis.call('SET', standing, version .. '\n' .. cmsgpack.pack(claims)) else redis.call('DEL', standing) end
return { moment, version, token, id, name, element, redis.call('EXISTS', list) }
