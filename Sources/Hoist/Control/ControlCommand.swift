/// Something that a worker does when it is asked from outside: ``Worker/Configuration/commands``.
///
/// ```swift
/// struct FlushCache: Codable { var older: Int }
/// ControlCommand("flush_cache") { (request: FlushCache, worker) in try await caches.flush(request.older); return ["flushed": true] }
/// ```
/// `hoist control flush_cache '{"older": 60}'` asks for it, and so does `app.control.broadcast("flush_cache", …)` in
/// Python. It runs on Swift's shared threads, and beside other requests. An error that it throws is the answer.
public struct ControlCommand: Sendable {
    public let name: String
    let perform: @Sendable (WireValue.Object, ControlledWorker) async throws -> WireValue

    /// - Parameters:
    ///   - name: as it is asked for. The name of a command that every worker has is refused when the worker starts.
    ///   - perform: what to do; the request is decoded from the arguments, the reply is encoded as JSON.
    public init<Request: Decodable & Sendable, Reply: Encodable & Sendable>(
        _ name: String, _ perform: @escaping @Sendable (Request, ControlledWorker) async throws -> Reply
    ) {
        self.name = name
        self.perform = { arguments, worker in
            let request: Request
            do {
                request = try WireDecoder.decode(Request.self, from: .object(arguments))
            } catch {
                throw ControlRefusal("\(name): the arguments do not fit: \(error)")
            }
            return try WireEncoder.encode(try await perform(request, worker))
        }
    }
}

/// Which requests a worker obeys. Whoever reaches the broker can send some.
public enum ControlMode: String, Sendable, CaseIterable {
    /// All. The default.
    case all
    /// Those that look, and change nothing.
    case inspect
    /// None: the worker does not even listen.
    case none
}

/// The worker that a command was sent to.
public struct ControlledWorker: Sendable {
    /// The name of the worker, `name@host`.
    public let node: String
    /// A client of the worker's backend.
    public let jobs: JobClient
    let engine: WorkerEngine

    /// Asks the worker something, or tells it something.
    public func perform(_ command: WorkerCommand) async -> WorkerReply { await engine.perform(command) }
}
