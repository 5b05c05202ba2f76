#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The workers of a backend, Swift and Python alike: hears what they tell, asks them, and steers them.
///
/// ```swift
/// let fleet = try Fleet(backend)
/// for try await reply in fleet.ask(.stats) { print(reply.node, reply.value["uptime"] ?? "") }
/// try await fleet.revoke(["video-42"], terminate: .kill, on: .node("encoder-1@gpu-7"))
/// ```
/// A request reaches the workers that listen at that moment, and no others.
public struct Fleet: Sendable {
    public let backend: Backend
    private let fanout: any Fanout
    private let time = LamportClock()

    /// - Throws: ``BackendError`` `.misuse` where the backend has no ``Fanout``.
    public init(_ backend: some BackendConvertible) throws {
        self.backend = backend.backend
        guard let fanout = self.backend.fanout else {
            throw BackendError(.misuse, "this backend does not carry events and requests of workers")
        }
        self.fanout = fanout
    }

    // MARK: - Events

    /// The events of all workers and clients from now on, until the stream is given up.
    ///
    /// Workers that were not told to send events of their jobs are asked to, at once and once a minute. While the
    /// connection is away, and when this program falls 10,000 messages behind, events are missed: the next one comes
    /// behind ``FleetEvent/missed(from:to:)``. What cannot be read is left out.
    public var events: AsyncStream<FleetEvent> {
        .fed(bufferingPolicy: .bufferingNewest(Self.mostBehind)) { events in
            while !Task.isCancelled {
                if let frames = try? await fanout.frames(exchange: FleetEvent.exchange, pattern: "#") {
                    await pass(frames, to: events)
                }
                await backend.clock.sleep(for: .seconds(1))
            }
        }
    }

    /// So many events may wait for who reads them.
    private static let mostBehind = 100_000

    /// As ``events``, for a caller that wants to know when it is heard.
    /// - Throws: ``BackendError`` when the backend does not confirm that this program listens. A retry is safe.
    /// - Returns: once everything is heard that is sent from now on.
    public func heardEvents() async throws -> AsyncStream<FleetEvent> {
        let frames = try await fanout.frames(exchange: FleetEvent.exchange, pattern: "#")
        return .fed(bufferingPolicy: .bufferingNewest(Self.mostBehind)) { events in await pass(frames, to: events) }
    }

    /// Reads frames, and asks for events, until the frames end or the task is cancelled.
    private func pass(
        _ frames: AsyncStream<FanoutFrame>, to events: AsyncStream<FleetEvent>.Continuation
    ) async {
        await untilEitherEnds {
            var heardAt = backend.clock.now
            // Since when the reader is too slow, and loses what it has not read.
            var lostSince: JobDate?
            for await frame in frames {
                let now = backend.clock.now
                if frame.isAfterGap { events.yield(.missed(from: heardAt, to: now)) }
                if let since = lostSince, now.timeIntervalSince(since) >= 1 {
                    events.yield(.missed(from: since, to: now))
                    lostSince = nil
                }
                heardAt = now
                for event in (try? FleetEvent.read(frame.bytes)) ?? [] {
                    if let clock = event.facts.clock { time.adjust(clock) }
                    if case .dropped = events.yield(event) { lostSince = lostSince ?? now }
                }
            }
        } _: {
            while !Task.isCancelled {
                // Where it fails now it is said again in a minute.
                try? await tell("enable_events")
                await backend.clock.sleep(for: .seconds(60))
            }
        }
    }

    // MARK: - Asking

    /// Something that workers can be asked, with its arguments: ``ping``, ``stats``, or one made by name.
    public struct Query: Sendable {
        public var name: String
        public var arguments: WireValue.Object

        /// - Parameters:
        ///   - name: the name of the command, one of Celery's or one of the workers' own.
        ///   - arguments: by name.
        public init(_ name: String, _ arguments: WireValue.Object = [:]) {
            self.name = name
            self.arguments = arguments
        }

        public static let ping = Query("ping")
        public static let stats = Query("stats")
        public static let registered = Query("registered", ["taskinfoitems": []])
        public static let activeQueues = Query("active_queues")
        public static let configuration = Query("conf", ["with_defaults": false])
        public static let scheduled = Query("scheduled")
        public static let reserved = Query("reserved")
        public static let revoked = Query("revoked")
        public static let clock = Query("clock")
        public static let report = Query("report")
        /// The running jobs, with their arguments.
        public static let active = Query("active", ["safe": nil])

        /// What is known of these jobs.
        public static func jobs(_ ids: [JobID]) -> Query {
            Query("query_task", ["ids": .array(ids.map { .string($0) })])
        }
    }

    /// Asks workers, and gives their replies as they come.
    ///
    /// The stream ends when all have answered that are known to be alive and to listen. Where that cannot be known it
    /// ends once no reply has come for the time-out.
    /// - Parameters:
    ///   - query: what to ask.
    ///   - target: whom.
    ///   - timeout: how long to wait for the first reply, and after each for another; ten times as long at most in
    ///     all. 1 second by default.
    /// - Returns: the stream; it throws ``BackendError`` when the request could not be sent: some may have it then.
    public func ask(
        _ query: Query, of target: ControlTarget = .all, timeout: Duration = .seconds(1)
    ) -> AsyncThrowingStream<ControlReply, any Error> {
        let directory = backend.directory
        return FleetRequest(
            query.name, query.arguments, to: target, timeout: timeout, time: time, clock: backend.clock
        ).send(on: fanout) {
            // Hoist's own workers; how many listen says of how many others there are.
            Set(((try? await directory?.workers()) ?? []).map(\.name))
        }
    }

    /// All replies, by the name of the worker.
    /// - Throws: as ``ask(_:of:timeout:)``.
    public func replies(
        to query: Query, of target: ControlTarget = .all, timeout: Duration = .seconds(1)
    ) async throws -> [String: WireValue] {
        var replies: [String: WireValue] = [:]
        for try await reply in ask(query, of: target, timeout: timeout) { replies[reply.node] = reply.value }
        return replies
    }

    /// Sends a request that nobody answers.
    /// - Throws: ``BackendError``; the request may have been sent then.
    public func tell(
        _ name: String, _ arguments: WireValue.Object = [:], to target: ControlTarget = .all
    ) async throws {
        try await FleetRequest(
            name, arguments, to: target, timeout: .zero, time: time, clock: backend.clock
        ).tell(on: fanout)
    }

    // MARK: - Steering

    /// A signal for a job that runs in a process of its own.
    public struct Signal: Sendable, Hashable {
        let name: String
        /// Asks the process to end: SIGTERM.
        public static let term = Signal(name: "SIGTERM")
        /// Ends the process at once: SIGKILL.
        public static let kill = Signal(name: "SIGKILL")
        public static let interrupt = Signal(name: "SIGINT")
        public static let quit = Signal(name: "SIGQUIT")

        /// - Parameter name: as `SIGUSR1` or `USR1`.
        public static func named(_ name: String) -> Signal { Signal(name: name) }
    }

    /// Has jobs not started any more: those that wait are cancelled.
    /// - Parameters:
    ///   - ids: of the jobs.
    ///   - signal: stops those that run as well, in a process by this signal, elsewhere by asking; nil leaves them.
    ///   - target: the workers to tell; all of them keep the ids, whichever gets the jobs.
    ///   - timeout: how long to wait for an answer, and after each for another. 1 second by default.
    /// - Returns: what the workers answered, by name.
    /// - Throws: ``BackendError``; some may have the request then, and a retry is safe.
    @discardableResult
    public func revoke(
        _ ids: [JobID], terminate signal: Signal? = nil, on target: ControlTarget = .all,
        timeout: Duration = .seconds(1)
    ) async throws -> [String: WireValue] {
        try await replies(
            to: Query(
                "revoke",
                [
                    "task_id": .array(ids.map { .string($0) }), "terminate": .bool(signal != nil),
                    "signal": .string((signal ?? .term).name),
                ]), of: target, timeout: timeout)
    }

    /// Has jobs with one of these stamps not started any more.
    /// - Parameters:
    ///   - stamps: values by name; one of them is enough.
    ///   - signal: stops those that run as well, in a process by this signal, elsewhere by asking; nil leaves them.
    ///   - target: the workers to tell.
    ///   - timeout: how long to wait for an answer, and after each for another. 1 second by default.
    /// - Returns: what the workers answered, by name.
    /// - Throws: ``BackendError``; some may have the request then, and a retry is safe.
    @discardableResult
    public func revoke(
        stamped stamps: [String: [String]], terminate signal: Signal? = nil, on target: ControlTarget = .all,
        timeout: Duration = .seconds(1)
    ) async throws -> [String: WireValue] {
        let headers = stamps.sorted { $0.key < $1.key }.map { ($0, WireValue.array($1.map { .string($0) })) }
        return try await replies(
            to: Query(
                "revoke_by_stamped_headers",
                [
                    "headers": .object(.init(headers)), "terminate": .bool(signal != nil),
                    "signal": .string((signal ?? .term).name),
                ]), of: target, timeout: timeout)
    }

    /// Has workers drain and end. Nobody answers.
    /// - Throws: ``BackendError``; some may have the request then.
    public func shutDown(_ target: ControlTarget) async throws { try await tell("shutdown", to: target) }
}
