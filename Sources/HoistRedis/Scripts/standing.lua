-- Claims that wait under one key until another turn with claims takes them away, or claim_standing.lua carries them
-- out: jobs are handed out by one of the two. A worker sends claim_standing.lua behind a command that blocks until
-- there is a job, and so need not ask. Their version is the number of the claims and how often they have been carried
-- out, with a point between.

local standing = P .. 'standing:' .. worker

-- Returns the number of claims that may be carried out now: all of them, or none.
local function take_claims_back(count)
    if count > 0 and turn.claims_number == '-' and is_there(P .. 'limits') then
        has_more = true
        return 0
    end
    if count == 0 then return 0 end
    local known = turn.known_version
    local before = known ~= '' and redis.call('GET', standing) or ''
    if string.sub(before, 1, #known + 1) == known .. '\n' or known == '' then
        redis.call('DEL', standing)
        return count
    end
    -- They were carried out a moment ago, and what they got is on its way to the worker: it has less room than it
    -- thinks.
    has_more = true
    stands = '-'
    return 0
end

-- What is left of the claims waits, with what is left of the slots.
local function leave_claims()
    local number = turn.claims_number
    if number == '' or number == '-' or problem ~= '' or has_more or has_strangers then return end
    local kept, is_any_free = { lane_of = {}, free_of_queue = {}, lanes = lanes, epoch = turn.claims_epoch }, false
    for _, claim in ipairs(claims) do
        for name, lane in pairs(claim.lanes) do kept.lane_of[claim.queue .. '\n' .. name] = lane end
        if claim.free ~= math.huge then kept.free_of_queue[claim.queue] = claim.free end
        if free_of(claim) > 0 then is_any_free = true end
    end
    if is_any_free then
        stands = number .. '.0'
        redis.call('SET', standing, stands .. '\n' .. cmsgpack.pack(kept))
    end
end
