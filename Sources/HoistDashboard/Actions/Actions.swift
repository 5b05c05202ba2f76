import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What can be done through the dashboard. Pages and the API come here; each act is written into the audit log.
struct Actions: Sendable {
    let collector: Collector
    let store: HistoryStore

    enum Act: String, Sendable, CaseIterable {
        case cancel, retry, drop, pause, resume, purge, grow, shrink, consume, leave, shutdown
        case runNow = "run-now"

        /// What a person is told afterwards.
        var done: String {
            switch self {
            case .cancel: "The job was asked to stop, or will not start."
            case .retry: "The job waits in its queue again."
            case .drop: "The job was removed."
            case .runNow: "The job is due now."
            case .pause: "The queue is paused: running jobs go on, no other starts."
            case .resume: "The queue is open again."
            case .purge: "The jobs that had not been started were removed."
            case .grow, .shrink, .consume, .leave: "The worker was told."
            case .shutdown: "The worker was asked to drain and end."
            }
        }
    }

    /// Why something was not done.
    struct Refusal: Error, Sendable, CustomStringConvertible {
        var message: String
        var description: String { message }
    }

    /// Does something to a job.
    /// - Throws: ``Refusal``; ``BackendError`` of the backend.
    func act(_ act: Act, onJob id: JobID, author: String) async throws {
        let backend = collector.backend
        try await audited(act, "job " + id, author) {
            let filter = JobFilter(ids: [id])
            switch act {
            case .cancel:
                let result = try await backend.cancel(id)
                if result == .alreadyEnded { throw Refusal(message: "The job has ended already.") }
                // A Python task has no record here: its workers are told.
                if result == .unknown, let fleet = collector.fleet {
                    try await fleet.revoke([id], terminate: .term)
                    return (1, "revoked")
                }
                return (1, result.label)
            case .retry:
                let count = try await backend.requeue(filter, arguments: nil)
                if count == 0 { throw Refusal(message: "The backend holds no ended job of this id any more.") }
                return (count, "requeued")
            case .drop:
                let count = try await backend.drop(filter)
                if count == 0 { throw Refusal(message: "The backend holds no ended job of this id any more.") }
                return (count, "dropped")
            case .runNow:
                guard try await backend.edit(id, .reschedule(collector.clock.now)) else {
                    throw Refusal(message: "The job does not wait any more.")
                }
                return (1, "due now")
            default: throw Refusal(message: "That cannot be done to a job.")
            }
        }
    }

    /// Does something to a queue.
    /// - Throws: ``Refusal``; ``BackendError`` of the backend.
    func act(_ act: Act, onQueue name: String, author: String) async throws {
        let backend = collector.backend
        try await audited(act, "queue " + name, author) {
            switch act {
            case .pause, .resume:
                guard let control = backend.queueControl else {
                    throw Refusal(message: "This backend cannot pause a queue.")
                }
                if act == .pause { try await control.pause(queue: name) } else { try await control.resume(queue: name) }
                return (0, act == .pause ? "paused" : "resumed")
            case .purge: return (try await backend.purge(queue: name), "purged")
            default: throw Refusal(message: "That cannot be done to a queue.")
            }
        }
    }

    /// Asks something of a worker.
    /// - Throws: ``Refusal``; ``BackendError`` of the backend.
    func act(_ act: Act, onWorker name: String, value: String, author: String) async throws {
        guard let fleet = collector.fleet else {
            throw Refusal(message: "This backend carries no requests to workers.")
        }
        try await audited(act, "worker " + name, author) {
            let query: Fleet.Query
            switch act {
            case .grow: query = Fleet.Query("pool_grow", ["n": 1])
            case .shrink: query = Fleet.Query("pool_shrink", ["n": 1])
            case .consume, .leave:
                guard !value.isEmpty, value.utf8.count <= 200 else {
                    throw Refusal(message: "Name a queue, of at most 200 characters.")
                }
                query = Fleet.Query(act == .consume ? "add_consumer" : "cancel_consumer", ["queue": .string(value)])
            case .shutdown:
                try await fleet.shutDown(.node(name))
                return (0, "asked")
            default: throw Refusal(message: "That cannot be asked of a worker.")
            }
            guard let reply = try await fleet.replies(to: query, of: .node(name))[name] else {
                throw Refusal(message: "The worker did not answer within a second.")
            }
            if let error = reply["error"]?.stringValue { throw Refusal(message: "The worker refused: \(error)") }
            return (0, reply["ok"]?.stringValue ?? "done")
        }
    }

    private func audited(
        _ act: Act, _ target: String, _ author: String, _ body: () async throws -> (count: Int, result: String)
    ) async throws {
        _ = try await store.audited(
            AuditEntry(
                at: collector.clock.now, backend: collector.name, author: author, action: act.rawValue,
                target: target.cut(to: 1024)), body)
    }
}
