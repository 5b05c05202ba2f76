import Endpoints
public import NIOCore
public import NIOPosix
import Synchronization

/// Talks to a Redis or Valkey server, to the primary that sentinels name, or to a cluster.
///
/// It may be shared by any number of tasks: their commands go over one connection, written together and answered in
/// order. The connection is made when it is first needed, and again after it was lost.
public final class RESPClient: Sendable {
    public let configuration: RESPConfiguration
    let connector: Connector
    private let locator: PrimaryLocator

    private struct Link {
        var connection: RESPConnection?
        var opening: EventLoopFuture<RESPConnection>?
    }

    private struct State {
        /// By address in a cluster, under nil otherwise.
        var links: [ServerAddress?: Link] = [:]
        var slots: [Int: ServerAddress] = [:]
        var idle: [RESPConnection] = []
        var isClosed = false
    }

    private let state = Mutex(State())

    /// - Parameters:
    ///   - configuration: where the server is.
    ///   - group: the event loops of the connections; the group of the process by default.
    /// - Throws: ``RESPError`` `.tls` when certificates or keys cannot be read.
    public init(_ configuration: RESPConfiguration, group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton)
        throws(RESPError)
    {
        self.configuration = configuration
        connector = try Connector(configuration, group: group)
        locator = PrimaryLocator(connector: connector)
    }

    // MARK: - Commands

    /// Sends one command.
    /// - Parameters:
    ///   - command: what to send.
    ///   - timeout: the time limit for the answer; nil for ``RESPConfiguration/commandTimeout``.
    /// - Throws: ``RESPServerError`` when the server refuses the command. ``RESPError`` when there is no answer; a
    ///   retry is safe when its ``RESPError/mayHaveRun`` is false. `CancellationError` when the task is cancelled while
    ///   it waits for the answer: the command may run all the same.
    @discardableResult
    public func send(_ command: RESPCommand, timeout: Duration? = nil) async throws -> RESPValue {
        let value = try await send(pipeline: [command], timeout: timeout)[0]
        if case .error(let error) = value { throw error }
        return value
    }

    /// Sends commands back to back, without commands of other callers in between. In a cluster all commands go to the
    /// node that has the first command's key.
    /// - Parameters:
    ///   - commands: any number.
    ///   - timeout: the time limit for the last answer; nil for ``RESPConfiguration/commandTimeout``.
    /// - Returns: an answer for each, in order; errors of the server are answers here.
    /// - Throws: ``RESPError``; its ``RESPError/mayHaveRun`` says whether the commands that were sent last may have
    ///   run. After a redirection in a cluster these are the redirected ones only: the others have run.
    ///   `CancellationError` when the task is cancelled while it waits for the answers: the commands may run all the
    ///   same.
    public func send(pipeline commands: [RESPCommand], timeout: Duration? = nil) async throws -> [RESPValue] {
        guard let first = commands.first else { return [] }
        var address = first.key.map(ClusterSlot.of).flatMap { slot in state.withLock { $0.slots[slot] } }
        var replies = [RESPValue](repeating: .null, count: commands.count)
        // The commands without an answer yet. A redirected command is sent again alone: the others have run.
        var open = Array(commands.indices)
        var isAsking = false
        for attempt in 1... {
            let connection = try await connection(to: address)
            let batch = open.flatMap { isAsking ? [RESPCommand("ASKING"), commands[$0]] : [commands[$0]] }
            var answers = try await connection.send(batch, timeout: timeout ?? configuration.commandTimeout)
            if isAsking { answers = stride(from: 1, to: answers.count, by: 2).map { answers[$0] } }
            for (index, answer) in zip(open, answers) { replies[index] = answer }
            // The primary has become a replica: the next command must look for the new primary.
            if answers.contains(where: { Self.error($0)?.code == "READONLY" }) { connection.close() }
            let redirections = zip(open, answers).compactMap { index, answer in
                ClusterRedirection(answer, from: connection.address).map { (index, $0) }
            }
            guard let elsewhere = redirections.first?.1, attempt < 8 else { return replies }
            if !elsewhere.isForOnce { state.withLock { $0.slots[elsewhere.slot] = elsewhere.address } }
            address = elsewhere.address
            isAsking = elsewhere.isForOnce
            // A transaction that was redirected has not run at all.
            open =
                commands.count > 1 && String(buffer: commands[0].bytes).contains("MULTI")
                ? Array(commands.indices) : redirections.map(\.0)
        }
        return replies
    }

    private static func error(_ value: RESPValue) -> RESPServerError? {
        if case .error(let error) = value { error } else { nil }
    }

    /// Runs commands as one transaction (MULTI … EXEC).
    /// - Parameters:
    ///   - commands: what runs between MULTI and EXEC.
    ///   - timeout: the time limit for the last answer; nil for ``RESPConfiguration/commandTimeout``.
    /// - Returns: the answer of each.
    /// - Throws: ``RESPServerError`` when the server refuses a command: then no command has run. ``RESPError`` when
    ///   there is no answer; a retry is safe when its ``RESPError/mayHaveRun`` is false. `CancellationError` when the
    ///   task is cancelled while it waits for the answers: the transaction may run all the same.
    public func transaction(_ commands: [RESPCommand], timeout: Duration? = nil) async throws -> [RESPValue] {
        guard let first = commands.first else { return [] }
        var begin = RESPCommand("MULTI")
        begin.key = first.key
        let replies = try await send(pipeline: [begin] + commands + [RESPCommand("EXEC")], timeout: timeout)
        for case .error(let error) in replies { throw error }
        return replies.last?.elements ?? []
    }

    /// Runs a script by its digest, and sends the source when the server does not have the script.
    /// - Parameters:
    ///   - script: what to run.
    ///   - keys: its KEYS; the first decides which node of a cluster runs the script.
    ///   - arguments: its ARGV.
    ///   - commands: sent right after the script, in the same go; their answers come after the script's. They run twice
    ///     when the server has lost the script meanwhile.
    ///   - timeout: the time limit for the last answer; nil for ``RESPConfiguration/commandTimeout``.
    /// - Returns: the script's answer, then those of the commands.
    /// - Throws: ``RESPServerError`` when the script fails or cannot be loaded; errors of `commands` are answers.
    ///   ``RESPError`` when there is no answer; a retry of the script is safe when its ``RESPError/mayHaveRun`` is
    ///   false. `CancellationError` when the task is cancelled while it waits for the answers: the script may run all
    ///   the same.
    public func evaluate(
        _ script: RESPScript, keys: [String], arguments: [RESPArgument], then commands: [RESPCommand] = [],
        timeout: Duration? = nil
    ) async throws -> [RESPValue] {
        // Loaded first: the commands after the script are to run once, and after the script.
        if script.digest == nil, !commands.isEmpty { try await load(script, key: keys.first, timeout: timeout) }
        if let call = script.call(keys: keys, arguments: arguments) {
            let replies = try await send(pipeline: [call] + commands, timeout: timeout)
            guard Self.error(replies[0])?.code == "NOSCRIPT" else { return try Self.checked(replies) }
        }
        let load = RESPCommand("SCRIPT LOAD", [.text(script.source)], key: keys.first)
        let call = RESPScript.call("EVAL", script.source, keys, arguments)
        let replies = try Self.checked(try await send(pipeline: [load, call] + commands, timeout: timeout), 2)
        script.digest = replies[0].text
        return Array(replies.dropFirst())
    }

    /// Loads a script into the server, for ``RESPScript/call(keys:arguments:)``.
    /// - Parameters:
    ///   - script: the script to be called.
    ///   - key: its first key, which decides which node of a cluster will run the script.
    ///   - timeout: the time limit for the answer; nil for ``RESPConfiguration/commandTimeout``.
    /// - Throws: ``RESPServerError`` when the server refuses the script, ``RESPError`` when there is no answer,
    ///   `CancellationError` when the task is cancelled while it waits for the answer. A retry is always safe: loading
    ///   a script twice has the effect of loading it once.
    public func load(_ script: RESPScript, key: String?, timeout: Duration? = nil) async throws {
        let load = RESPCommand("SCRIPT LOAD", [.text(script.source)], key: key)
        script.digest = try Self.checked(try await send(pipeline: [load], timeout: timeout))[0].text
    }

    private static func checked(_ replies: [RESPValue], _ count: Int = 1) throws -> [RESPValue] {
        for case .error(let error) in replies.prefix(count) { throw error }
        return replies
    }

    // MARK: - Connections

    /// Gives `body` a connection of its own: for blocking commands, and for WATCH.
    /// - Throws: ``RESPError`` when no server can be reached: `body` has not run, and a retry is safe. Otherwise only
    ///   what `body` throws.
    public func withConnection<T: Sendable>(_ body: (RESPConnection) async throws -> T) async throws -> T {
        let idle = state.withLock { state in
            state.idle.removeAll { !$0.isOpen }
            return state.idle.popLast()
        }
        let connection = if let idle { idle } else { try await locator.connect(for: .commands).get() }
        do {
            let result = try await body(connection)
            let isKept = state.withLock { state in
                guard !state.isClosed, state.idle.count < 8 else { return false }
                state.idle.append(connection)
                return true
            }
            if !isKept { connection.close() }
            return result
        } catch {
            // The state of the connection is unknown.
            connection.close()
            throw error
        }
    }

    /// The shared connection: to a node of a cluster, or to the server.
    private func connection(to address: ServerAddress?) async throws -> RESPConnection {
        let (open, opening) = try state.withLock {
            state throws(RESPError) -> (RESPConnection?, EventLoopFuture<RESPConnection>?) in
            guard !state.isClosed else { throw RESPError(.closed, "the client was closed") }
            if let open = state.links[address]?.connection, open.isOpen { return (open, nil) }
            if let opening = state.links[address]?.opening { return (nil, opening) }
            let opening = address.map { connector.connect(to: $0, for: .commands) } ?? locator.connect(for: .commands)
            state.links[address] = Link(opening: opening)
            opening.whenComplete { [weak self] in self?.opened($0, opening, to: address) }
            return (nil, opening)
        }
        // Not as a completed future: to await it takes a visit to the event loop and back.
        if let open { return open }
        // The caller may give up; the connection is made all the same, for others.
        let promise = opening!.eventLoop.makePromise(of: RESPConnection.self)
        opening!.cascade(to: promise)
        return try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.fail(CancellationError())
        }
    }

    /// Stores an opened connection once, however many callers wait for it.
    private func opened(
        _ result: Result<RESPConnection, any Error>, _ opening: EventLoopFuture<RESPConnection>,
        to address: ServerAddress?
    ) {
        let surplus = state.withLock { state -> RESPConnection? in
            let isCurrent = state.links[address]?.opening === opening
            switch result {
            case .success(let connection):
                guard isCurrent, !state.isClosed else { return connection }
                state.links[address] = Link(connection: connection)
            case .failure:
                if isCurrent { state.links[address] = nil }
                // The node is gone: the next node that is asked knows where the slots are now.
                if let address { state.slots = state.slots.filter { $0.value != address } }
            }
            return nil
        }
        surplus?.close()
    }

    /// Opens a connection for the caller alone. The caller closes the connection.
    /// - Parameter key: a key of the commands to come: in a cluster the connection goes to the node of the key, if that
    ///   node is known.
    public func openConnection(for key: String? = nil) -> EventLoopFuture<RESPConnection> {
        let slot = key.map { ClusterSlot.of(Array($0.utf8)) }
        let node = state.withLock { state in slot.flatMap { state.slots[$0] } }
        return node.map { connector.connect(to: $0, for: .commands) }
            ?? locator.connect(for: .commands, preferring: currentServer)
    }

    func openSubscriptions(_ onMessage: @escaping @Sendable ([RESPValue]) -> Void) -> EventLoopFuture<RESPConnection> {
        locator.connect(for: .subscriptions(onMessage: onMessage), preferring: currentServer)
    }

    /// The server that commands go to. Subscriptions must go to the same server, not to another server of the list.
    private var currentServer: ServerAddress? { state.withLock { $0.links[nil]?.connection?.address } }

    /// Calls `body` once, on an event loop; does nothing when the client is closed already.
    public func schedule(after delay: Duration, _ body: @escaping @Sendable () -> Void) {
        if state.withLock({ $0.isClosed }) { return }
        if delay > .zero {
            eventLoop.scheduleTask(in: TimeAmount(bounded: delay), body)
        } else {
            eventLoop.execute(body)
        }
    }

    var eventLoop: any EventLoop { connector.group.next() }

    /// Closes the shared connections. Commands under way fail, and the next command makes a new connection.
    ///
    /// For a caller that has read an answer which cannot be that of its command: where an answer got lost on the way, each
    /// command would have the answer of the one before, for as long as the connection lives.
    public func startOver() {
        let connections = state.withLock { state in
            let open = state.links.values.compactMap(\.connection) + state.idle
            state.links = state.links.filter { $0.value.connection == nil }
            state.idle = []
            return open
        }
        for connection in connections { connection.close() }
    }

    /// Closes every connection. Commands under way fail.
    public func close() {
        let connections = state.withLock { state in
            state.isClosed = true
            defer {
                state.links = [:]
                state.idle = []
            }
            return state.links.values.compactMap(\.connection) + state.idle
        }
        for connection in connections { connection.close() }
    }
}

/// A Lua script, and its digest once a server has reported it.
public final class RESPScript: Sendable {
    public let source: String
    private let known = Mutex<String?>(nil)

    public init(_ source: String) { self.source = source }

    /// The call by digest, for a connection of the caller's own. The server may have lost the script all the same, and
    /// then answers `NOSCRIPT`.
    /// - Returns: nil until a server has reported the digest.
    public func call(keys: [String], arguments: [RESPArgument]) -> RESPCommand? {
        digest.map { Self.call("EVALSHA", $0, keys, arguments) }
    }

    fileprivate static func call(_ name: String, _ what: String, _ keys: [String], _ arguments: [RESPArgument])
        -> RESPCommand
    {
        var words: [RESPArgument] = []
        words.reserveCapacity(2 + keys.count + arguments.count)
        words += [.text(what), .integer(Int64(keys.count))]
        for key in keys { words.append(.text(key)) }
        words += arguments
        return RESPCommand(name, words, key: keys.first)
    }

    var digest: String? {
        get { known.withLock { $0 } }
        set { known.withLock { $0 = newValue } }
    }
}
