-- Runs the claims, and answers with the places of TurnWire.Reply:
--       is_alive       1 when the lease of the worker is not over
--       codes          see settle.lua
--       refused        ids of refused progress, and of jobs refused as done
--       to_cancel      ids of jobs that are to be stopped
--       dead           workers whose lease is over
--       next_due       when the next delayed job is due; '' for none
--       has_more       1 when there is more
--       has_strangers  1 when elements were left that nobody here can take
--       empty          see claim.lua
--       first_token    of the first delivery
--       deliveries     see claim.lua
--       now            the time that it is here
--       problem        what went wrong with the claims; '' for nothing
--       stands         the version of the claims that wait now; '' for none, - when what they got is on its way
--       copies         ids of jobs that had succeeded and were there once more; these copies were dropped

local claim_count = take_claims_back(tonumber(next_argument()))
if claim_count > 0 and is_alive then
    claim_jobs(claim_count)
    leave_claims()
end

if has_released then
    -- Somebody may start a job now that another one has ended: this worker if it did not ask yet, others if it cannot.
    for _, queue in ipairs(redis.call('SMEMBERS', P .. 'flow')) do
        if redis.call('ZRANGEBYSCORE', P .. 'waits:' .. queue, '-inf', whole(now), 'LIMIT', 0, 1)[1] then
            has_more = true
            made_ready = true
        end
    end
end
if made_ready then redis.call('PUBLISH', P .. 'work', 'ready') end
-- Limits may have had the oldest of them cancelled.
local to_cancel = is_special and redis.call('SMEMBERS', cancelled) or {}
-- An empty list costs the server more to answer than none.
local function unless_empty(list) return list[1] ~= nil and list end
return reply_of({
    is_alive = is_alive and 1 or 0, codes = unless_empty(codes), refused = unless_empty(refused),
    to_cancel = unless_empty(to_cancel), dead = unless_empty(dead), next_due = next_due and whole(next_due) or '',
    has_more = has_more and 1 or 0, has_strangers = has_strangers and 1 or 0, empty = unless_empty(empty),
    first_token = token + 1, deliveries = unless_empty(deliveries), now = whole(now), problem = problem, stands = stands,
    copies = unless_empty(haul.copies),
})
