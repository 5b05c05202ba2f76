import Endpoints
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// One connection to one server, ready for commands. Commands of concurrent callers are written together, in the order
/// of the calls.
public final class RESPConnection: Sendable {
    typealias Completion = @Sendable (Result<[RESPValue], RESPError>) -> Void

    struct Request: Sendable {
        var bytes: ByteBuffer
        var expectedReplies: Int
        var timeout: TimeAmount
        var completion: Completion

        init(_ commands: [RESPCommand], timeout: TimeAmount, completion: @escaping Completion) {
            bytes = commands[0].bytes
            for command in commands.dropFirst() { bytes.writeImmutableBuffer(command.bytes) }
            expectedReplies = commands.count
            self.timeout = timeout
            self.completion = completion
        }
    }

    private struct Outbox {
        var requests: [Request] = []
        var isFlushing = false
        var closedBy: RESPError?
        var spinning: SpinPolicy
    }

    let address: ServerAddress
    /// Whether the server agreed to speak RESP3.
    let isRESP3: Bool
    private let channel: any Channel
    private let outbox: Mutex<Outbox>

    init(address: ServerAddress, channel: any Channel, isRESP3: Bool, spinLimit: TimeAmount) {
        self.address = address
        self.channel = channel
        self.isRESP3 = isRESP3
        outbox = Mutex(Outbox(spinning: SpinPolicy(limit: spinLimit.nanoseconds)))
    }

    /// Sends commands back to back, without commands of other callers in between.
    /// - Parameters:
    ///   - commands: any number.
    ///   - timeout: until the last answer.
    /// - Returns: an answer for each; an error of the server is an answer.
    /// - Throws: ``RESPError``, whose ``RESPError/mayHaveRun`` says whether a retry is safe. `CancellationError` when
    ///   the task is cancelled after it has given its thread up to wait and before there is an answer: the commands may
    ///   run all the same.
    public func send(_ commands: [RESPCommand], timeout: Duration) async throws -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        let promise = ReplyPromise()
        let request = Request(commands, timeout: TimeAmount(bounded: timeout)) { promise.complete($0) }
        if let spinsUntil = enqueue(request, callerCanSpin: MultiThreadedEventLoopGroup.currentEventLoop == nil) {
            if !promise.spin(until: spinsUntil) { outbox.withLock { $0.spinning.spunInVain() } }
        }
        return try await promise.value
    }

    /// Sends commands back to back, for code that must not wait on a task. Calls back on the connection's event loop
    /// when all have been answered or have failed. Calls back at once, on the caller's thread, when there are no
    /// commands or the connection is closed already.
    public func send(
        _ commands: [RESPCommand], timeout: Duration,
        completion: @escaping @Sendable (Result<[RESPValue], RESPError>) -> Void
    ) {
        guard !commands.isEmpty else { return completion(.success([])) }
        enqueue(Request(commands, timeout: TimeAmount(bounded: timeout), completion: completion))
    }

    /// Sends a command whose answers come as messages (SUBSCRIBE, UNSUBSCRIBE and their pattern forms).
    func sendWithoutReply(_ command: RESPCommand) {
        var request = Request([command], timeout: .zero) { _ in }
        request.expectedReplies = 0
        enqueue(request)
    }

    /// - Returns: until when the caller may keep its thread while it waits, see ``SpinPolicy``.
    @discardableResult
    private func enqueue(_ request: Request, callerCanSpin: Bool = false) -> Int64? {
        let now = NIODeadline.now().nanoseconds
        let (mustFlush, spinsUntil, refusal) = outbox.withLock { outbox -> (Bool, Int64?, RESPError?) in
            if let error = outbox.closedBy { return (false, nil, error) }
            outbox.requests.append(request)
            defer { outbox.isFlushing = true }
            let spinsUntil = request.expectedReplies > 0 ? outbox.spinning.sent(canSpin: callerCanSpin, now: now) : nil
            return (!outbox.isFlushing, spinsUntil, nil)
        }
        if let refusal {
            request.completion(.failure(refusal))
            return nil
        }
        if mustFlush {
            channel.eventLoop.execute {
                self.channel.pipeline.fireUserInboundEventTriggered(FlushOutbox(connection: self))
            }
        }
        return spinsUntil
    }

    /// A request has its answers. Called on the event loop.
    /// - Returns: until when the event loop is to stay awake for the next, see ``SpinPolicy``.
    func noteAnswered(now: Int64) -> Int64? { outbox.withLock { $0.spinning.answered(now: now) } }

    /// Everything that waits to be written. Called on the event loop.
    func takeOutbox() -> [Request] {
        outbox.withLock { outbox in
            outbox.isFlushing = false
            defer { outbox.requests = [] }
            return outbox.requests
        }
    }

    /// Called once, when the channel is gone: refuses the requests that were not written and all later ones.
    func noteClosed(_ error: RESPError) {
        let unsent = outbox.withLock { outbox in
            outbox.closedBy = outbox.closedBy ?? RESPError(error.code, error.message, mayHaveRun: false)
            defer { outbox.requests = [] }
            return outbox.requests
        }
        for request in unsent { request.completion(.failure(RESPError(error.code, error.message, mayHaveRun: false))) }
    }

    public var isOpen: Bool { outbox.withLock { $0.closedBy == nil } && channel.isActive }

    public func close() { channel.close(promise: nil) }

    var closeFuture: EventLoopFuture<Void> { channel.closeFuture }
}

/// Asks the handler to write what is in the connection's outbox.
struct FlushOutbox: Sendable {
    let connection: RESPConnection
}

/// Gives a waiting task the answer once, or ends its wait when it is cancelled.
final class ReplyPromise: Sendable {
    private enum State {
        case idle
        case waiting(CheckedContinuation<[RESPValue], any Error>)
        case done(Result<[RESPValue], any Error>)
    }

    private let state = Mutex(State.idle)
    /// Set when the answer arrived before a task waited for it.
    private let isDoneUnawaited = Atomic(false)

    /// Keeps the thread, but yields the processor to other threads that have work: on a single processor, to the
    /// threads that bring the answer.
    /// - Returns: whether the caller has seen the answer in that time.
    func spin(until deadline: Int64) -> Bool {
        while !isDoneUnawaited.load(ordering: .acquiring), NIODeadline.now().nanoseconds < deadline { sched_yield() }
        return NIODeadline.now().nanoseconds < deadline
    }

    var value: [RESPValue] {
        get async throws {
            if isDoneUnawaited.load(ordering: .acquiring), case .done(let result) = state.withLock({ $0 }) {
                return try result.get()
            }
            return try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { attach($0) }
            } onCancel: {
                finish(.failure(CancellationError()))
            }
        }
    }

    func complete(_ result: Result<[RESPValue], RESPError>) { finish(result.mapError { $0 as any Error }) }

    private func attach(_ continuation: CheckedContinuation<[RESPValue], any Error>) {
        let result = state.withLock { state -> Result<[RESPValue], any Error>? in
            if case .done(let result) = state { return result }
            state = .waiting(continuation)
            return nil
        }
        if let result { continuation.resume(with: result) }
    }

    private func finish(_ result: Result<[RESPValue], any Error>) {
        let continuation = state.withLock { state -> CheckedContinuation<[RESPValue], any Error>? in
            switch state {
            case .idle:
                state = .done(result)
                isDoneUnawaited.store(true, ordering: .releasing)
                return nil
            case .waiting(let continuation):
                state = .done(result)
                return continuation
            case .done: return nil
            }
        }
        continuation?.resume(with: result)
    }
}
