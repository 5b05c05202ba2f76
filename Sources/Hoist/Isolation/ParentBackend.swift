#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Synchronization

/// The backend in a child: it sends the requests of handlers to the parent, which alone talks to the real backend.
final class ParentBackend: Broker, ResultStore, TopicRouting, JobBroadcasting, BackendConvertible {
    let clock: any JobClock = SystemJobClock()
    let workDoorbell = Doorbell()

    private struct State {
        var nextID: ChildRequest.ID = 0
        var waiting: [ChildRequest.ID: CheckedContinuation<ChildReply, any Error>] = [:]
        var watches: [ChildRequest.ID: WeakWatch] = [:]
    }

    /// The instance of this process; nil when the process is no child.
    static let shared = ChildChannel.inherited.map(ParentBackend.init)

    private let channel: ChildChannel
    private let state = Mutex(State())

    private init(_ channel: ChildChannel) { self.channel = channel }

    // MARK: - Requests

    private func ask(_ request: ChildRequest) async throws -> ChildReply {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        let reply: ChildReply = try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<ChildReply, any Error>) in
                let frame = ChildReport.request(id, request).encoded()
                guard frame.count <= Frame.maximumBytes else {
                    let error = BackendError(
                        .misuse,
                        "\(frame.count) bytes are more than a child can hand to its worker at once; enqueue fewer jobs in one call"
                    )
                    return continuation.resume(throwing: error)
                }
                let isCancelled = state.withLock { state in
                    // A later cancellation finds the continuation in `waiting`.
                    if Task.isCancelled { return true }
                    state.waiting[id] = continuation
                    return false
                }
                if isCancelled { continuation.resume(throwing: CancellationError()) } else { channel.send(frame) }
            }
        } onCancel: {
            state.withLock { $0.waiting.removeValue(forKey: id) }?.resume(throwing: CancellationError())
        }
        if case .failed(let error) = reply { throw error }
        return reply
    }

    private static let mismatch = BackendError(
        .incompatible, "the worker gave an answer to another question", isRetrySafe: false)

    private static let notHere = BackendError(
        .misuse, "only a worker takes and settles jobs, and this is one of its children")

    func take(_ reply: ChildReply, to id: ChildRequest.ID) {
        state.withLock { $0.waiting.removeValue(forKey: id) }?.resume(returning: reply)
    }

    func publish(_ messages: [Message]) async throws -> [PublishResult] {
        try await publish(messages, within: .seconds(60))
    }

    func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        guard case .published(let results) = try await ask(.publish(messages, within: limit)),
            results.count == messages.count
        else {
            throw Self.mismatch
        }
        return results
    }

    func cancel(_ id: JobID) async throws -> CancelResult {
        guard case .cancelled(let result) = try await ask(.cancel(id)) else { throw Self.mismatch }
        return result
    }

    func record(of id: JobID) async throws -> JobRecord? {
        guard case .record(let record) = try await ask(.record(id)) else { throw Self.mismatch }
        return record
    }

    func log(of id: JobID) async throws -> JobLog? {
        guard case .log(let log) = try await ask(.log(id)) else { throw Self.mismatch }
        return log
    }

    func forget(_ id: JobID) async throws -> Bool {
        guard case .bool(let wasThere) = try await ask(.forget(id)) else { throw Self.mismatch }
        return wasThere
    }

    func store(_ results: [ResultWrite]) async throws { throw Self.notHere }

    func open(_ worker: WorkerPresence, lease: Duration, sink: any SessionSink) async throws -> any WorkerSession {
        throw Self.notHere
    }

    var abilities: BrokerAbilities { channel.shape.abilities }

    /// The parts that the worker's backend has, as far as handlers may use them.
    var backend: Backend {
        var backend = Backend(broker: self, results: self)
        if channel.shape.hasTopics { backend.topics = self }
        if channel.shape.hasBroadcasts { backend.broadcasts = self }
        return backend
    }

    // MARK: - Topics and broadcasts

    func bind(queue: String, to topics: TopicBinding) async throws {
        _ = try await ask(.bind(queue: queue, exchange: topics.exchange, pattern: topics.pattern, isUndone: false))
    }

    func unbind(queue: String, from topics: TopicBinding) async throws {
        _ = try await ask(.bind(queue: queue, exchange: topics.exchange, pattern: topics.pattern, isUndone: true))
    }

    func queues(of exchange: String, topic: String) async throws -> [String] {
        guard case .names(let names) = try await ask(.queues(exchange: exchange, topic: topic)) else {
            throw Self.mismatch
        }
        return names
    }

    func broadcast(_ message: Message, on channel: String) async throws -> Int {
        guard case .number(let count) = try await ask(.broadcast(message, channel: channel)) else {
            throw Self.mismatch
        }
        return count
    }

    func broadcasts(on channel: String) async throws -> AsyncStream<Message> { throw Self.notHere }

    // MARK: - Following jobs

    /// The latest known record of a job.
    private final class Watch: Sendable {
        let changes = Doorbell()
        let record = Mutex<(latest: JobRecord?, isKnown: Bool)>((nil, false))
        private let onEnd: @Sendable () -> Void

        init(onEnd: @escaping @Sendable () -> Void) { self.onEnd = onEnd }
        deinit { onEnd() }
    }

    private struct WeakWatch: Sendable {
        weak let watch: Watch?
    }

    func updates(of id: JobID) -> JobUpdates {
        let number = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        let watch = Watch { [weak self] in
            self?.state.withLock { $0.watches[number] = nil }
            self?.channel.send(.request(number, .unwatch(number)))
        }
        state.withLock { $0.watches[number] = WeakWatch(watch: watch) }
        channel.send(.request(number, .watch(id)))
        return JobUpdates(changes: watch.changes, clock: clock) { [clock] in
            while true {
                let mark = watch.changes.mark
                let (latest, isKnown) = watch.record.withLock { $0 }
                if isKnown { return latest }
                await watch.changes.wait(after: mark, for: nil, clock: clock)
                try Task.checkCancellation()
            }
        }
    }

    func update(_ id: ChildRequest.ID, _ record: JobRecord?) {
        guard let watch = state.withLock({ $0.watches[id]?.watch }) else { return }
        watch.record.withLock { current in
            // nil marks the end of the updates: the last record stays valid.
            if let record { current.latest = record }
            current.isKnown = true
        }
        watch.changes.ring()
    }
}

extension ChildRequest {
    /// Asks the real backend.
    func answer(from backend: Backend) async -> ChildReply {
        do {
            switch self {
            case .publish(let messages, let limit):
                return .published(try await backend.broker.publish(messages, within: limit))
            case .record(let id): return .record(try await backend.record(of: id))
            case .log(let id): return .log(try await backend.log(of: id))
            case .cancel(let id): return .cancelled(try await backend.cancel(id))
            case .forget(let id): return .bool(try await backend.forget(id))
            case .watch, .unwatch: return .done
            case .queues(let exchange, let topic):
                return .names(try await backend.topicRouting().queues(of: exchange, topic: topic))
            case .bind(let queue, let exchange, let pattern, let isUndone):
                let (routing, topics) = (try backend.topicRouting(), TopicBinding.topic(pattern, exchange: exchange))
                if isUndone {
                    try await routing.unbind(queue: queue, from: topics)
                } else {
                    try await routing.bind(queue: queue, to: topics)
                }
                return .done
            case .broadcast(let message, let channel):
                return .number(try await backend.broadcasting().broadcast(message, on: channel))
            }
        } catch let error as BackendError {
            return .failed(error)
        } catch {
            return .failed(BackendError(.unavailable, "\(error)", isRetrySafe: false))
        }
    }
}

extension Backend {
    /// - Throws: ``BackendError`` `.misuse` where there are no topics.
    package func topicRouting() throws(BackendError) -> any TopicRouting {
        guard let topics else { throw BackendError(.misuse, "this backend knows no topics; Redis does") }
        return topics
    }

    /// - Throws: ``BackendError`` `.misuse` where there are no broadcasts.
    package func broadcasting() throws(BackendError) -> any JobBroadcasting {
        guard let broadcasts else { throw BackendError(.misuse, "this backend cannot broadcast") }
        return broadcasts
    }
}

/// What the backend of a worker can do, as its children are told.
struct BackendShape: Sendable, CustomStringConvertible {
    var abilities: BrokerAbilities
    var hasTopics: Bool
    var hasBroadcasts: Bool

    init(_ backend: Backend) {
        abilities = backend.broker.abilities
        (hasTopics, hasBroadcasts) = (backend.topics != nil, backend.broadcasts != nil)
    }

    /// - Parameter text: as ``description``.
    init(_ text: String) {
        let number = UInt32(text) ?? 0
        abilities = BrokerAbilities(rawValue: number >> 2)
        (hasTopics, hasBroadcasts) = (number & 1 != 0, number & 2 != 0)
    }

    var description: String {
        String(abilities.rawValue << 2 | (hasBroadcasts ? 2 : 0) | (hasTopics ? 1 : 0))
    }
}
