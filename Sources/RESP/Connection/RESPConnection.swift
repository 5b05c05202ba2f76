import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

/// One connection to one server, ready for commands. Commands of concurrent callers are written together, in the order of the calls.
public final class RESPConnection: Sendable {
    typealias Completion = @Sendable (Result<[RESPValue], RESPError>) -> Void

    struct Request: Sendable {
        var bytes: ByteBuffer
        var expectedReplies: Int
        var timeout: TimeAmount
        var completion: Completion
    }

    private struct Outbox {
        var requests: [Request] = []
        var isFlushing = false
        var closedBy: RESPError?
    }

    let address: ServerAddress
    /// Whether the server agreed to speak RESP3.
    let isRESP3: Bool
    private let channel: any Channel
    private let outbox = Mutex(Outbox())

    init(address: ServerAddress, channel: any Channel, isRESP3: Bool) {
        self.address = address
        self.channel = channel
        self.isRESP3 = isRESP3
    }

    /// Sends commands one right after the other, with nothing of others in between.
    /// - Parameters:
    ///   - commands: any number.
    ///   - timeout: until the last answer.
    /// - Returns: an answer for each; an error of the server is an answer.
    /// - Throws: ``RESPError``; `CancellationError` when the task is cancelled while it waits, and the commands may run all the same.
    public func send(_ commands: [RESPCommand], timeout: Duration) async throws -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        return try await ReplyPromise.wait { promise in
            send(commands, timeout: TimeAmount(timeout)) { promise.complete($0) }
        }
    }

    func send(_ commands: [RESPCommand], timeout: TimeAmount, completion: @escaping Completion) {
        var bytes = commands[0].bytes
        for command in commands.dropFirst() { bytes.writeImmutableBuffer(command.bytes) }
        enqueue(Request(bytes: bytes, expectedReplies: commands.count, timeout: timeout, completion: completion))
    }

    /// Sends commands one right after the other and calls back, on the connection's event loop, when all have been answered: for code that must
    /// not wait on a task.
    public func send(
        _ commands: [RESPCommand], timeout: Duration, completion: @escaping @Sendable (Result<[RESPValue], RESPError>) -> Void
    ) {
        send(commands, timeout: TimeAmount(timeout), completion: completion)
    }

    /// Sends a command whose answers come as messages (SUBSCRIBE and its kin).
    func sendWithoutReply(_ command: RESPCommand) {
        enqueue(Request(bytes: command.bytes, expectedReplies: 0, timeout: .zero) { _ in })
    }

    private func enqueue(_ request: Request) {
        let (mustFlush, refusal) = outbox.withLock { outbox -> (Bool, RESPError?) in
            if let error = outbox.closedBy { return (false, error) }
            outbox.requests.append(request)
            defer { outbox.isFlushing = true }
            return (!outbox.isFlushing, nil)
        }
        if let refusal { return request.completion(.failure(refusal)) }
        guard mustFlush else { return }
        channel.eventLoop.execute { self.channel.pipeline.fireUserInboundEventTriggered(FlushOutbox(connection: self)) }
    }

    /// Everything that waits to be written. Called on the event loop.
    func takeOutbox() -> [Request] {
        outbox.withLock { outbox in
            outbox.isFlushing = false
            defer { outbox.requests = [] }
            return outbox.requests
        }
    }

    /// Called once, when the channel is gone: refuses what was not written and whatever comes later.
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

/// Resumes a waiting task once: with the answer, or at once when it is cancelled.
final class ReplyPromise<Value: Sendable>: Sendable {
    private enum State {
        case idle
        case waiting(CheckedContinuation<Value, any Error>)
        case done(Result<Value, any Error>)
    }

    private let state = Mutex(State.idle)

    static func wait(_ begin: (ReplyPromise) -> Void) async throws -> Value {
        let promise = ReplyPromise()
        begin(promise)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { promise.attach($0) }
        } onCancel: {
            promise.finish(.failure(CancellationError()))
        }
    }

    func complete(_ result: Result<Value, RESPError>) { finish(result.mapError { $0 as any Error }) }

    private func attach(_ continuation: CheckedContinuation<Value, any Error>) {
        let result = state.withLock { state -> Result<Value, any Error>? in
            if case .done(let result) = state { return result }
            state = .waiting(continuation)
            return nil
        }
        if let result { continuation.resume(with: result) }
    }

    private func finish(_ result: Result<Value, any Error>) {
        let continuation = state.withLock { state -> CheckedContinuation<Value, any Error>? in
            switch state {
            case .idle:
                state = .done(result)
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
