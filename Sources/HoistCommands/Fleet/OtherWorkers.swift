import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A live worker that is not Hoist's: what it answers of itself.
struct OtherWorker: Sendable {
    var name: String
    var queues: [String] = []
    var jobNames: [String] = []
    var running = 0
    var slots: Int?
    var startedAt: JobDate?
    /// One of Hoist's that the directory does not list, perhaps because it has just started.
    var isSwift = false

    /// With the members that Hoist's workers have as well.
    var value: WireValue {
        [
            "name": .string(name), "language": isSwift ? "swift" : "python",
            "queues": .array(queues.map { .string($0) }),
            "job_names": .array(jobNames.map { .string($0) }), "running": .integer(Int64(running)),
            "concurrency": slots.map { .integer(Int64($0)) } ?? .null,
            "started_at": startedAt.map { .string(WireTimestamp.string(from: $0)) } ?? .null,
        ]
    }

    /// Asks those that no directory lists. Nobody is waited for where nobody listens. Where it is not possible to ask,
    /// for instance because the server takes no writes, it says so and finds none.
    /// - Throws: `BackendError` `.unavailable` when the backend cannot be reached.
    static func all(of backend: Backend, besides known: [WorkerPresence]) async throws -> [OtherWorker] {
        do {
            return try await asked(backend, besides: known)
        } catch let error as BackendError where error.code == .unavailable {
            throw error
        } catch {
            FleetPrinting.complain("other workers could not be asked: \(TerminalText.line("\(error)"))")
            return []
        }
    }

    private static func asked(_ backend: Backend, besides known: [WorkerPresence]) async throws -> [OtherWorker] {
        guard let fleet = try? Fleet(backend) else { return [] }
        let names = Set(known.map(\.name))
        var found: [String: OtherWorker] = [:]
        for (node, stats) in try await fleet.replies(to: .stats) where !names.contains(node) {
            var worker = OtherWorker(name: node)
            worker.slots = stats["pool"]?["max-concurrency"]?.integerValue.map(Int.init(clamping:))
            worker.startedAt = stats["uptime"]?.doubleValue.map { JobDate().addingTimeInterval(-$0) }
            worker.isSwift = stats["hoist"] != nil
            found[node] = worker
        }
        guard !found.isEmpty else { return [] }
        let target = ControlTarget.nodes(found.keys.sorted())
        for (node, value) in try await fleet.replies(to: .activeQueues, of: target) {
            found[node]?.queues = (value.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
        }
        for (node, value) in try await fleet.replies(to: .registered, of: target) {
            found[node]?.jobNames = (value.arrayValue ?? []).compactMap(\.stringValue)
        }
        for (node, value) in try await fleet.replies(to: .active, of: target) {
            found[node]?.running = value.arrayValue?.count ?? 0
        }
        return found.values.sorted { $0.name < $1.name }
    }
}
