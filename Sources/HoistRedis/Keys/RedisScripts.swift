import RESP

/// The scripts. Each begins with common.lua, except `enqueuePlain` and `claimStanding`, which stand alone.
enum RedisScripts {
    static let enqueuePlain = RESPScript(String(decoding: PackageResources.enqueue_plain_lua, as: UTF8.self))
    static let claimStanding = RESPScript(String(decoding: PackageResources.claim_standing_lua, as: UTF8.self))
    static let enqueue = script(
        PackageResources.limits_lua + PackageResources.place_lua + PackageResources.enqueue_lua)
    /// The fragments of a worker's turn share their locals, and run in this order.
    static let workerTurn = script(
        PackageResources.limits_lua + PackageResources.place_lua + Array(TurnWire.prologue.utf8)
            + PackageResources.worker_turn_lua + PackageResources.settle_lua + PackageResources.lines_lua
            + PackageResources.strangers_lua + PackageResources.claim_lua + PackageResources.standing_lua
            + PackageResources.answer_lua)
    static let addMembers = script(PackageResources.add_members_lua)
    static let compareAndSet = script(PackageResources.compare_and_set_lua)
    static let writeSchedule = script(
        PackageResources.limits_lua + PackageResources.place_lua + Array("\nlocal function enqueue_jobs(ARGV)\n".utf8)
            + PackageResources.enqueue_lua + Array("\nend\n".utf8) + PackageResources.write_schedule_lua)
    static let dueSchedules = script(PackageResources.due_schedules_lua)
    static let countGroup = script(PackageResources.count_group_lua)
    static let keepWorkflow = script(PackageResources.keep_workflow_lua)
    static let closeQueue = script(PackageResources.close_queue_lua)
    static let setLimits = script(PackageResources.set_limits_lua)
    static let renewLease = script(PackageResources.renew_lease_lua)
    static let retireWorker = script(PackageResources.retire_worker_lua)
    static let findDeadWorkers = script(PackageResources.find_dead_workers_lua)
    static let findJob = script(PackageResources.find_job_lua)
    static let changeWaiting = script(PackageResources.change_waiting_lua)
    static let requeue = script(PackageResources.requeue_lua)
    static let forgetResult = script(PackageResources.forget_result_lua)
    static let purgeQueue = script(PackageResources.purge_queue_lua)
    static let removeExpired = script(PackageResources.remove_expired_lua)
    static let expireRecords = script(PackageResources.expire_records_lua)
    static let requestCancel = script(PackageResources.request_cancel_lua)
    static let cancelInPlace = script(PackageResources.cancel_in_place_lua)
    static let storeResult = script(PackageResources.store_result_lua)
    static let putBackOutcomes = script(PackageResources.put_back_outcomes_lua)
    static let restoreUnacknowledged = script(PackageResources.restore_unacknowledged_lua)

    private static func script(_ source: [UInt8]) -> RESPScript {
        RESPScript(String(decoding: PackageResources.common_lua + source, as: UTF8.self))
    }
}
