-- Puts back outcomes that a Celery worker has overwritten with a late RETRY.
--
-- ARGV: broker database, result database ('' when it is the same), and for each three: result key, its seconds (0 for
--       ever), the outcome
-- Returns how many were put back.
-- Atomic, so that nothing comes between looking and storing: that gap is what makes Celery's own write a race.

local mended = 0
in_database(ARGV[2], function()
    for at = 3, #ARGV, 3 do
        local stored = redis.call('GET', ARGV[at])
        -- A RETRY that Hoist stored belongs to a job that was requeued since.
        if status_of(stored) == 'RETRY' and not string.find(stored, '"hoist":', 1, true) then
            put_result(ARGV[at], ARGV[at + 1], ARGV[at + 2])
            mended = mended + 1
        end
    end
end)
if ARGV[2] ~= '' then redis.call('SELECT', ARGV[1]) end
return mended
