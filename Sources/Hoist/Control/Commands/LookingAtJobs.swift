#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Commands that ask which jobs a worker has.
extension BuiltInCommand {
    static let lookingAtJobs: [BuiltInCommand] = [
        .inspect("active", "dump_active") { call, panel in
            let isSafe = try call.arguments.flag("safe")
            return .array(
                await panel.engine.heldJobs.filter(\.hasBegun).map { $0.description(node: panel.node, isSafe: isSafe) })
        },
        .inspect("reserved", "dump_reserved") { _, panel in
            .array(
                await panel.engine.heldJobs.filter { !$0.hasBegun }.map {
                    $0.description(node: panel.node, isSafe: false)
                })
        },
        .inspect("scheduled", "dump_schedule") { call, panel in
            .array(
                try await delayedJobs(panel, ofAll: !call.isForMany).map { job in
                    [
                        "eta": job.due.map { .string(WireTimestamp.string(from: $0)) } ?? .null, "priority": 6,
                        "request": job.description(node: panel.node, isSafe: false),
                    ]
                })
        },
        .inspect("revoked", "dump_revoked") { _, panel in .array(panel.revoked.ids.map { .string($0) }) },
        .inspect("query_task") { call, panel in
            let ids = try call.arguments.textsIfPresent("ids")
            guard !ids.isEmpty else { return [:] }
            let wanted = Set(ids)
            var found: WireValue.Object = [:]
            for job in await panel.engine.heldJobs where wanted.contains(job.id) {
                found[job.id] = [
                    job.hasBegun ? "active" : "reserved", job.description(node: panel.node, isSafe: false),
                ]
            }
            for job in try await delayed(ids.filter { found[$0] == nil }, panel) {
                found[job.id] = ["scheduled", job.description(node: panel.node, isSafe: false)]
            }
            return .object(found)
        },
    ]

    private static let mostDelayed = 1000

    /// The delayed jobs of the queues that the worker consumes, the nearest first.
    /// - Parameter ofAll: also those of queues that another live worker consumes, whose name comes first.
    private static func delayedJobs(_ panel: ControlPanel, ofAll: Bool) async throws -> [HeldJobView] {
        guard let directory = panel.backend.directory else { return [] }
        let workers = ofAll ? [] : try await directory.workers()
        var jobs: [DelayedJob] = []
        for queue in await panel.engine.consumedQueues.sorted() {
            let first = workers.filter { $0.queues.contains(queue) && !$0.isDraining }.map(\.name).min()
            guard ofAll || first ?? panel.node >= panel.node else { continue }
            jobs += try await directory.delayedJobs(queue: queue, limit: mostDelayed)
        }
        jobs.sort { ($0.due ?? .distantFuture, $0.id) < ($1.due ?? .distantFuture, $1.id) }
        return jobs.prefix(mostDelayed).map(HeldJobView.init)
    }

    /// Those of these jobs that wait for their time in a queue that the worker consumes.
    private static func delayed(_ ids: [JobID], _ panel: ControlPanel) async throws -> [HeldJobView] {
        let queues = await panel.engine.consumedQueues
        var views: [HeldJobView] = []
        for id in ids.prefix(mostDelayed) {
            guard let record = try await panel.backend.record(of: id), queues.contains(record.queue),
                record.state == .scheduled || record.state == .retrying
            else { continue }
            let arguments = try? await panel.backend.directory?.arguments(of: id)
            views.append(
                HeldJobView(
                    DelayedJob(id: id, name: record.name, queue: record.queue, due: record.dueAt, arguments: arguments))
            )
        }
        return views
    }
}

/// A job that a worker has or will have, as others see it.
struct HeldJobView: Sendable {
    var id: JobID
    var name: String
    var queue: String
    var hasBegun: Bool
    /// Nil where they are too large to be kept, or cannot be read.
    var arguments: Arguments?
    var positionalText: String
    var keywordText: String
    var startedAt: Date?
    var due: Date?
    var priority = 0
    var exchange = ""
    var isRedelivered = false
    /// The child's in the process lane.
    var processID: Int?

    init(_ job: DelayedJob) {
        self.init(id: job.id, name: job.name, queue: job.queue, hasBegun: false, headers: nil)
        arguments = job.arguments
        due = job.due
    }

    init(id: JobID, name: String, queue: String, hasBegun: Bool, headers: MessageHeaders?) {
        self.id = id
        self.name = name
        self.queue = queue
        self.hasBegun = hasBegun
        positionalText = headers?.argumentsText ?? "()"
        keywordText = headers?.keywordArgumentsText ?? "{}"
    }

    /// The members that Celery gives a task, no more: its own tests compare whole objects.
    func description(node: String, isSafe: Bool) -> WireValue {
        var shown = isSafe ? nil : arguments
        let secret = SecretNames.known(of: name)
        for key in shown?.keyword.keys ?? [] where secret.contains(key) || SecretNames.isUsual(key) {
            shown?.keyword[key] = "***"
        }
        return [
            "id": .string(id), "name": .string(name),
            "args": shown.map { .array($0.positional) } ?? .string(positionalText),
            "kwargs": shown.map { .object($0.keyword) } ?? .string(keywordText), "type": .string(name),
            "hostname": .string(node), "time_start": startedAt.map { .double($0.timeIntervalSince1970) } ?? .null,
            "acknowledged": .bool(hasBegun),
            "delivery_info": [
                "exchange": .string(exchange), "routing_key": .string(queue), "priority": .integer(Int64(priority)),
                "redelivered": .bool(isRedelivered),
            ],
            "worker_pid": processID.map { .integer(Int64($0)) } ?? .null,
        ]
    }
}
