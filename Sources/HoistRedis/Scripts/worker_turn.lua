-- Settles what a worker has finished, stores progress, and hands it new jobs. Atomic, so that a job is at every moment
-- in a queue, with a worker, or ended: never in none of them, never in two.
--
-- The script is put together from fragments that run one after another and share their locals:
--   limits.lua, place.lua   what limits say, and where a message goes
--   TurnWire.swift          the places of arguments and reply by name: turn.worker, step.queue, reply_of
--   worker_turn.lua         this fragment: reads the fixed arguments, and finds out which keys exist
--   settle.lua              what the worker has finished and reports
--   lines.lua               lines of jobs that limits hold up; made only where there are limits
--   strangers.lua           messages with job names that the worker does not know
--   claim.lua               new jobs, out of the lists
--   standing.lua            claims that wait here for jobs to come
--   answer.lua              runs the claims and answers
--
-- Arguments, each group by the fragment that reads it: the fixed ones here, the settlements and reports (settle.lua),
-- the claims (claim.lua). The fixed ones, see TurnWire.Argument:
--   now             '' for the server's time
--   worker          its id
--   broker_database the database of the queues
--   result_database the database of the results; '' when it is the same
--   result_prefix   in front of the key of a result
--   scan_limit      the number of elements that may be looked at in each list
--   is_forced       1 to settle for a worker whose lease is over
--   claims_number   the number of the claims if they are to wait here for jobs to come; '' when not; - for a part of a
--                   turn that is not the first: where there are limits only the first part claims, for it may have to
--                   put jobs back in their order
--   claims_epoch    what a command must name to carry out these claims, see claim_standing.lua
--   known_version   the version of the claims that the worker believes to wait already; '' for none
--   byte_limit      how many bytes of messages the claims may read
--   takes_suspects  1 when a job may be claimed whose worker has died
--   started         what is stored as the result of each job that begins, in JSON; '' for nothing
--   started_seconds for how long, 0 for ever

local turn = next_turn()
local now = time_of(turn.now)
local worker = turn.worker
local broker_db, result_db = turn.broker_database, turn.result_database
local scan_limit = tonumber(turn.scan_limit)

pass_full_server()
-- Before anything is changed: where the other database cannot be used, nothing may be.
if result_db ~= '' then
    redis.call('SELECT', result_db)
    redis.call('SELECT', broker_db)
end

-- Workers whose lease is over.
local dead, first_lease = {}, redis.call('ZRANGE', P .. 'workers', 0, 0, 'WITHSCORES')[2]
if first_lease and tonumber(first_lease) <= now then
    give_time_after_stall(now)
    dead = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', whole(now), 'LIMIT', 0, 16)
end

local lease = redis.call('ZSCORE', P .. 'workers', worker)
local is_alive = turn.is_forced == '1' or (lease and tonumber(lease) > now)
local held = P .. 'held:' .. worker
local info = P .. 'held:' .. worker .. ':info'
local cancelled = P .. 'cancel:' .. worker

-- Mostly none of these is there, which one question tells.
local is_special = redis.call('EXISTS', cancelled, P .. 'permits', P .. 'limits', P .. 'flow', P .. 'closed', P .. 'full', P .. 'paused') > 0
local function is_there(key) return is_special and redis.call('EXISTS', key) == 1 end
