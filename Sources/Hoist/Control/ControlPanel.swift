import Logging
import Synchronization

/// Listens to requests for a worker, has them performed and replies.
///
/// It runs on a thread of its own, so that it answers also while jobs occupy all others.
final class ControlPanel: Sendable {
    /// So many requests are performed at once; more are dropped.
    private static let mostRequests = 1000

    private struct State {
        var underWay = 0
        var dropped = 0
        var unreadable = 0
        var warnedAt: Int64 = .min
        /// How many regular expressions came in a second.
        var expressions: (second: Int64, count: Int) = (0, 0)
    }

    let node: String
    let engine: WorkerEngine
    let recorder: EventRecorder
    let revoked: RevokedJobs
    let time: LamportClock
    let backend: Backend
    let logger: Logger
    let mode: ControlMode
    /// Changes the limits of a kind of job.
    let setLimits: @Sendable (RunLimits, _ jobName: String) throws -> Void
    let stop: @Sendable (Worker.StopMode) -> Void
    /// The ticket of what this worker asks all others itself.
    private let ownTicket: String
    private let jobs: JobClient
    private let commands: [String: BuiltInCommand]
    private let own: [String: ControlCommand]
    private let patience: Patience
    private let state = Mutex(State())

    init(
        node: String, engine: WorkerEngine, recorder: EventRecorder, revoked: RevokedJobs, time: LamportClock,
        jobs: JobClient, mode: ControlMode, own: [ControlCommand], ownTicket: String, patience: Patience,
        setLimits: @escaping @Sendable (RunLimits, String) throws -> Void,
        stop: @escaping @Sendable (Worker.StopMode) -> Void
    ) {
        self.node = node
        self.engine = engine
        self.recorder = recorder
        self.revoked = revoked
        self.time = time
        self.jobs = jobs
        self.mode = mode
        self.patience = patience
        self.ownTicket = ownTicket
        self.setLimits = setLimits
        self.stop = stop
        backend = jobs.backend
        logger = patience.logger
        commands = BuiltInCommand.byName
        self.own = Dictionary(own.map { ($0.name, $0) }) { _, last in last }
    }

    private static let listening = "listen to requests"

    /// Listens until the task is cancelled.
    /// - Parameter executor: where the built-in commands run.
    func run(on fanout: any Fanout, executor: any TaskExecutor) async {
        while !Task.isCancelled {
            do {
                let frames = try await fanout.frames(exchange: ControlRequest.exchange, pattern: "#")
                patience.succeeded(Self.listening)
                for await frame in frames {
                    guard let request = accept(frame) else { continue }
                    let isOwn = own[request.method] != nil
                    // A worker that leaves is not held up by what it was asked.
                    runBeside(on: isOwn ? globalConcurrentExecutor : executor) {
                        await self.answer(request, on: fanout)
                        self.state.withLock { $0.underWay -= 1 }
                    }
                }
                // Mostly it ends with the worker.
                await backend.clock.sleep(for: .milliseconds(100))
            } catch {
                await patience.backOff(after: error, from: Self.listening)
            }
        }
    }

    /// - Returns: nil for what is not for this worker, cannot be read, or is too much.
    private func accept(_ frame: FanoutFrame) -> ControlRequest? {
        let request: ControlRequest
        do throws(WireError) {
            request = try ControlRequest(frame: frame.bytes)
        } catch {
            drop(\.unreadable, "requests that cannot be read were dropped", error.message)
            return nil
        }
        time.adjust(request.clock)
        guard isMeant(by: request.addressee), request.ticket == nil || request.ticket != ownTicket else { return nil }
        // A worker that starts waits for each answer to it: one that comes late only makes it wait longer.
        if request.method == "hello", let expires = request.expires, expires < backend.clock.now { return nil }
        let isFull = state.withLock { state in
            if state.underWay >= Self.mostRequests { return true }
            state.underWay += 1
            return false
        }
        if isFull { drop(\.dropped, "requests were dropped: too many came at once", nil) }
        return isFull ? nil : request
    }

    /// A regular expression costs up to 10 ms of the thread that sends heartbeats, so that there may be few a second.
    private func isMeant(by addressee: ControlRequest.Addressee) -> Bool {
        guard case .expression(let pattern) = addressee else { return addressee.names(node) }
        let second = SystemJobClock().uptime / 1_000_000
        let isTooMuch = state.withLock { state in
            if state.expressions.second != second { state.expressions = (second, 0) }
            state.expressions.count += 1
            return state.expressions.count > Self.mostExpressions
        }
        if isTooMuch {
            drop(\.dropped, "requests with regular expressions were dropped: too many came at once", nil)
            return false
        }
        if let isMatch = NodeExpression.matches(pattern, node) { return isMatch }
        drop(\.unreadable, "requests with a regular expression need libpcre2-8, which is not installed", nil)
        return false
    }

    /// So many regular expressions are tried in a second.
    private static let mostExpressions = 10

    /// Counts what is dropped, and says so once a minute.
    private func drop(_ counter: any WritableKeyPath<State, Int> & Sendable, _ what: Logger.Message, _ why: String?) {
        let now = SystemJobClock().uptime
        let count = state.withLock { state -> Int? in
            state[keyPath: counter] += 1
            guard state.warnedAt == .min || now - state.warnedAt >= 60_000_000 else { return nil }
            state.warnedAt = now
            return state[keyPath: counter]
        }
        guard let count else { return }
        var metadata: Logger.Metadata = ["count": "\(count)"]
        if let why { metadata["reason"] = "\(TerminalText.line(why))" }
        logger.warning(what, metadata: metadata)
    }

    /// How many requests were dropped.
    var dropped: (unreadable: Int, tooMany: Int) { state.withLock { ($0.unreadable, $0.dropped) } }

    private func answer(_ request: ControlRequest, on fanout: any Fanout) async {
        guard let value = await perform(request), let ticket = request.ticket, let address = request.replyTo,
            // Never into a queue of jobs.
            address.exchange == ControlRequest.replyExchange
        else { return }
        let frame = ControlReply.encode(value, from: node, ticket: ticket, clock: time.tick(), to: address)
        do {
            _ = try await fanout.reply(frame, to: address)
        } catch {
            logger.debug("a reply could not be sent", metadata: ["error": "\(error)"])
        }
    }

    /// - Returns: the value to reply; nil for no reply.
    private func perform(_ request: ControlRequest) async -> WireValue? {
        if let command = commands[request.method] {
            guard mode == .all || command.onlyLooks else {
                return ["error": .string("\(request.method): this worker obeys only commands that look")]
            }
            let arguments = ControlArguments(command: request.method, values: request.arguments)
            let call = ControlCall(arguments: arguments, isForMany: request.addressee.isForMany)
            do {
                return try await command.perform(call, self)
            } catch let error as ControlRefusal {
                return ["error": .string(error.message)]
            } catch {
                return ["error": .string("\(request.method): \(error)")]
            }
        }
        guard let command = own[request.method] else {
            return ["error": .string("KeyError(\(PythonText.quoted(request.method)))")]
        }
        guard mode == .all else {
            return ["error": .string("\(request.method): this worker obeys only commands that look")]
        }
        do {
            return try await command.perform(
                request.arguments, ControlledWorker(node: node, jobs: jobs, engine: engine))
        } catch {
            return ["error": .string("\(error)")]
        }
    }
}

/// A request as a command sees it.
struct ControlCall: Sendable {
    var arguments: ControlArguments
    /// Whether other workers were asked as well.
    var isForMany: Bool
}

/// A command that every worker has.
struct BuiltInCommand: Sendable {
    var names: [String]
    /// Whether it changes nothing.
    var onlyLooks: Bool
    /// - Returns: what to reply; nil for no reply, also where one is wanted.
    /// - Throws: ``ControlRefusal``, or what the backend throws.
    var perform: @Sendable (ControlCall, ControlPanel) async throws -> WireValue?

    static func inspect(
        _ names: String..., perform: @escaping @Sendable (ControlCall, ControlPanel) async throws -> WireValue?
    ) -> BuiltInCommand {
        BuiltInCommand(names: names, onlyLooks: true, perform: perform)
    }

    static func control(
        _ names: String..., perform: @escaping @Sendable (ControlCall, ControlPanel) async throws -> WireValue?
    ) -> BuiltInCommand {
        BuiltInCommand(names: names, onlyLooks: false, perform: perform)
    }

    static let all: [BuiltInCommand] = lookingAtWorker + lookingAtJobs + changingWorker + stoppingJobs
    static let byName: [String: BuiltInCommand] = Dictionary(
        uniqueKeysWithValues: all.flatMap { command in command.names.map { ($0, command) } })
}

extension ControlRequest.Addressee {
    /// Whether a worker of this name is meant.
    func names(_ node: String) -> Bool {
        switch self {
        case .all: true
        case .nodes(let names): names.contains(node)
        case .glob(let pattern): GlobPattern(pattern).matches(node)
        case .expression(let pattern): NodeExpression.matches(pattern, node) ?? false
        case .unknown: false
        }
    }

    var isForMany: Bool { if case .nodes(let names) = self { names.count > 1 } else { true } }
}
