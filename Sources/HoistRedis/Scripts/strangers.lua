-- What is known of the messages in a list whose job names a worker does not know: the part of worker_turn.lua that lets
-- it go past them without reading them again.

-- Where the strangers of a list end, as it was found out before, so that they are read once. The memory belongs to the
-- names that a worker knows. It holds how many there are, what the first and the last of them look like, when Hoist's
-- scripts last put a job in front of the list, and when all of them were read. It is given up when they put jobs in
-- front, and two minutes after all were read: other programs may have put a job among them that this worker knows.
local function memory_key(claim, list)
    if not claim.digest then
        local names = {}
        for name in pairs(claim.lanes) do names[#names + 1] = name end
        table.sort(names)
        claim.digest = redis.sha1hex(table.concat(names, '\n'))
    end
    return P .. 'strangers:' .. claim.digest .. ':' .. list
end

-- Enough to tell messages apart: kombu writes the id in front, and its delivery tag at the end.
local function looks_of(element) return #element .. ':' .. string.sub(element, 1, 300) .. string.sub(element, -300) end

-- Returns the place from the end of the last element that is known to be a stranger, how many of those in front of it
-- are known as well, itself included, when all were read, and whether the first is still the one that it was; nil when
-- nothing is known.
local function known_strangers(claim, list, first)
    local stored = redis.call('GET', memory_key(claim, list))
    if not stored then return nil end
    local count, looks, last_looks, last, front, since = unpack(cmsgpack.unpack(stored))
    if front ~= front_of(list) or not since or now - since > 120000000 then return nil end
    local at_end = redis.call('LINDEX', list, -count)
    if at_end and looks_of(at_end) == last_looks then return count, count, since, looks_of(first) == looks end
    -- Somebody has taken some of them, or has put others in front.
    local index = last ~= '' and redis.call('LPOS', list, last, 'RANK', -1)
    if not index then return nil end
    return redis.call('LLEN', list) - index, count, since, false
end

local function remember_strangers(claim, list, count, first, last, since)
    if not first or not last then return end
    local value = { count, looks_of(first), looks_of(last), #last <= 262144 and last or '', front_of(list), since }
    redis.call('SET', memory_key(claim, list), cmsgpack.pack(value), 'EX', 300)
end
