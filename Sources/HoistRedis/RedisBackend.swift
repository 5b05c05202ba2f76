import Endpoints
public import Hoist
import HoistYAML
public import RESP
import Synchronization

/// Keeps jobs in Redis or Valkey, in the same queues as Celery's workers and producers.
///
/// Queues and results have Celery's names and forms, so programs in Python take part unchanged. Data that Celery has no
/// place for lies under `hoist:`. Every transition is one script.
public final class RedisBackend: Broker, ResultStore, BackendConvertible {
    public struct Configuration: Sendable {
        /// kombu's `global_keyprefix`, in front of every key and channel. In a cluster it needs a hash tag, such as
        /// `{hoist}:`, so that all keys lie on one node; `{hoist}:` is put in front of a prefix without one.
        public var keyPrefix: String
        /// The `global_keyprefix` of Celery's result backend.
        public var resultKeyPrefix: String
        /// Where results are kept, when that is another server or database; nil for the same.
        public var results: RESPConfiguration?
        /// kombu's `priority_steps`: priorities are rounded down to one of these. `[0, 3, 6, 9]` by default; `0...9`
        /// keeps all ten apart. Every program on the queues must use the same.
        public var prioritySteps: [Int]
        /// Urgency of a Hoist job that was enqueued without a priority: 0 by default, as on every backend. Celery's own
        /// messages without a priority are the most urgent on Redis; 9 puts Hoist's beside them, into the queue's main
        /// list.
        public var unlabelledUrgency: Int
        /// How long records of ended jobs are kept by default, Celery's `result_expires`. A day; nil for ever.
        public var resultRetention: Duration?
        /// How long dead letters are kept. 90 days by default.
        public var deadLetterRetention: Duration
        /// How many dead letters of a queue are kept at most, the newest. 10,000 by default.
        public var deadLetterLimit: Int
        /// A job becomes a dead letter when this number of workers have died with it. 3 by default.
        public var maximumLostWorkers: Int
        /// Celery's `result_extended`: results carry name, arguments, worker, retries and queue in Celery's own members
        /// as well. Off by default.
        public var extendsResults: Bool
        /// kombu's `visibility_timeout`: a message that a Celery worker took and did not acknowledge within this time
        /// is put back. An hour by default.
        public var visibilityTimeout: Duration
        /// How many elements of a list a worker reads to get past jobs whose names it does not know. 1,000 by default.
        public var scanLimit: Int
        /// How an enqueue waits for copies. Not at all by default.
        public var replication: Replication?
        /// Whether workers run on a server that drops queues when its memory is full (`maxmemory-policy` `allkeys-…`).
        /// False by default: they refuse to start.
        public var allowsEviction = false
        /// Whether a job that begins is stored as STARTED, as Celery does with `task_track_started`, for Python
        /// programs that ask. False by default: it costs a result more for each job.
        public var storesStarted = false
        /// The clock of due times and leases; the server's own time by default, which all workers share.
        public var clock: (any JobClock)?

        public init(
            keyPrefix: String = "", resultKeyPrefix: String = "", results: RESPConfiguration? = nil,
            prioritySteps: [Int] = [0, 3, 6, 9],
            unlabelledUrgency: Int = 0, resultRetention: Duration? = .seconds(86_400),
            deadLetterRetention: Duration = .seconds(90 * 86_400),
            deadLetterLimit: Int = 10_000, maximumLostWorkers: Int = 3, extendsResults: Bool = false,
            visibilityTimeout: Duration = .seconds(3600), scanLimit: Int = 1000, replication: Replication? = nil,
            clock: (any JobClock)? = nil
        ) {
            self.keyPrefix = keyPrefix
            self.resultKeyPrefix = resultKeyPrefix
            self.results = results
            self.prioritySteps = prioritySteps
            self.unlabelledUrgency = unlabelledUrgency.clamped(to: 0...9)
            self.resultRetention = resultRetention
            self.deadLetterRetention = deadLetterRetention
            self.deadLetterLimit = max(0, deadLetterLimit)
            self.maximumLostWorkers = max(1, maximumLostWorkers)
            self.extendsResults = extendsResults
            self.visibilityTimeout = visibilityTimeout
            self.scanLimit = max(1, scanLimit)
            self.replication = replication
            self.clock = clock
        }
    }

    /// What an enqueue waits for beyond the server's own answer.
    public struct Replication: Sendable, Hashable {
        var replicas: Int
        var needsDisk: Bool
        var timeout: Duration

        /// Waits until `count` replicas have the job (WAIT), at most `timeout`.
        public static func replicas(_ count: Int, timeout: Duration = .seconds(1)) -> Replication {
            Replication(replicas: max(0, count), needsDisk: false, timeout: timeout)
        }

        /// Waits until the job is in the server's append-only file, and in the files of `replicas` replicas (WAITAOF,
        /// Redis 7.2), at most `timeout`.
        public static func disk(replicas: Int = 0, timeout: Duration = .seconds(1)) -> Replication {
            Replication(replicas: max(0, replicas), needsDisk: true, timeout: timeout)
        }
    }

    public let configuration: Configuration
    public let workDoorbell = Doorbell()
    public let clock: any JobClock

    let thread = EventLoopExecutor()
    private let actorThread: EventLoopSerialExecutor
    public var address: BrokerAddress {
        let server = client.configuration
        let (servers, kind): ([ServerAddress], String) =
            switch server.topology {
            case .servers(let addresses): (addresses, server.tls == nil ? "redis" : "rediss")
            case .sentinels(let addresses, _): (addresses, "sentinel")
            case .cluster(let addresses): (addresses, server.tls == nil ? "redis+cluster" : "rediss+cluster")
            }
        let user = server.credentials()?.username
        let places = servers.map(\.description).joined(separator: ",")
        var address = BrokerAddress(
            transport: "redis", url: "\(kind)://\(user.map { $0 + "@" } ?? "")\(places)/\(server.database)",
            virtualHost: String(server.database), user: user, isEncrypted: server.tls != nil)
        if case .host(let host, let port)? = servers.first { (address.host, address.port) = (host, port) }
        return address
    }

    public var threads: WorkerThreads? { WorkerThreads(tasks: thread, actors: actorThread) }

    public var abilities: BrokerAbilities {
        let always: BrokerAbilities = [
            .uniqueKeys, .knownIDs, .delays, .fencing, .selectsByName, .storesResults, .leases, .cancellation, .expiry,
            .progress, .history, .lastingCredit, .waitingRecords,
        ]
        return configuration.prioritySteps.count == 10 ? always.union(.tenPriorities) : always
    }

    public var backend: Backend {
        var backend = Backend(broker: self, results: self)
        backend.queueControl = self
        backend.limits = self
        backend.topics = self
        backend.broadcasts = self
        backend.fanout = self
        backend.directory = self
        backend.editing = self
        backend.coordination = self
        backend.upkeep = self
        backend.schedules = self
        backend.groups = self
        backend.workflows = self
        return backend
    }

    let client: RESPClient
    /// The client of a separate server of results; nil when results are on the broker's server.
    let resultClient: RESPClient?
    let workflowCache = Mutex<[String: StoredWorkflow]>([:])
    let keys: RedisKeys
    /// The number of the database of results, when that is another one on the broker's server; else empty.
    let resultDatabase: String
    let watcher: ListWatcher
    let follower: ResultFollower
    let subscriptions: RESPSubscriptions
    let broadcasts: Broadcasts
    let frames: FanoutChannels
    let jobNotices = JobNotices()
    let announced = Mutex<Set<String>>([])
    let consumed = Mutex<Set<String>>([])
    let restoredAt = Mutex<Int64>(0)
    let expiredAt = Mutex<Int64>(0)
    let isPreparedToTake = Mutex(false)
    let isTakingOver = Mutex(false)
    let hasCheckedServer = Mutex(false)
    /// Clients that renew leases, by the length of the lease.
    let leaseClients = Mutex<[Duration: RESPClient]>([:])
    let leaseThread = EventLoopExecutor()
    /// Until this time, jobs are enqueued by the script that checks caps and limits.
    let specialUntil = Mutex(ContinuousClock.now)
    let lateRetries = Mutex(LateRetries())

    /// - Parameters:
    ///   - server: where the broker is.
    ///   - configuration: everything that has a default.
    /// - Throws: `BackendError` `.misuse` when the configuration makes no sense or certificates cannot be read. No
    ///   connection is made yet.
    public init(_ server: RESPConfiguration, configuration: Configuration = Configuration()) throws {
        YAMLText.register()
        actorThread = EventLoopSerialExecutor(thread)
        var configuration = configuration
        var server = server
        if case .cluster = server.topology {
            // One hash tag for all keys, so that one node holds them and one script may use all of them.
            if !configuration.keyPrefix.contains("{") { configuration.keyPrefix = "{hoist}:" + configuration.keyPrefix }
            if !configuration.resultKeyPrefix.contains("{") {
                configuration.resultKeyPrefix = configuration.keyPrefix + configuration.resultKeyPrefix
            }
            let slots = Set(
                [configuration.keyPrefix, configuration.resultKeyPrefix].map { ClusterSlot.of(Array(($0 + "x").utf8)) })
            guard slots.count == 1 || configuration.results != nil else {
                throw BackendError(
                    .misuse,
                    "in a cluster the prefixes of keys and of results must hold the same hash tag, such as {hoist}:")
            }
        }
        if server.clientName == nil { server.clientName = "hoist" }
        let steps = configuration.prioritySteps
        guard steps.first == 0, steps == steps.sorted(), Set(steps).count == steps.count,
            steps.allSatisfy((0...9).contains)
        else {
            throw BackendError(.misuse, "priority steps must be ascending numbers from 0 to 9 that begin with 0")
        }
        self.configuration = configuration
        clock = configuration.clock ?? SystemJobClock()
        do {
            client = try RESPClient(server, group: thread.group)
            if var results = configuration.results {
                if results.clientName == nil { results.clientName = "hoist" }
                let isSameServer = results.topology == server.topology
                resultDatabase = isSameServer && results.database != server.database ? String(results.database) : ""
                resultClient = isSameServer ? nil : try RESPClient(results, group: thread.group)
            } else {
                resultDatabase = ""
                resultClient = nil
            }
        } catch {
            throw BackendError(.misuse, "the configuration of Redis is of no use: \(error.message)")
        }
        keys = RedisKeys(
            prefix: configuration.keyPrefix,
            resultPrefix: RedisKeys.step(ofResultPrefix: configuration.resultKeyPrefix),
            prioritySteps: steps)
        subscriptions = RESPSubscriptions(client)
        // A publication reaches all databases of a server, so the number of the database is part of the name.
        broadcasts = Broadcasts(subscriptions, prefix: configuration.keyPrefix + "/\(server.database).")
        frames = FanoutChannels(subscriptions, prefix: configuration.keyPrefix + "/\(server.database).")
        watcher = ListWatcher(client: client, doorbell: workDoorbell)
        follower = ResultFollower(
            results: resultClient.map(RESPSubscriptions.init) ?? subscriptions, broker: subscriptions, keys: keys,
            clock: clock)
    }

    /// Opens what a URL names, see `RESPConfiguration.init(url:)` for the forms.
    ///
    /// Besides those, the query may hold `prefix` (kombu's `global_keyprefix`), `result_prefix`, `result_db`,
    /// `unlabelled_urgency`, `priority_steps` (as in `0,3,6,9`), `max_message_bytes` (see `WireLimits/maximumBytes`)
    /// and `spin_limit` (in microseconds, see `RESPConfiguration.spinLimit`).
    /// - Throws: `BackendError` `.misuse`, with what is wrong; the URL is not repeated, for it may hold a password.
    public convenience init(url: String, configuration: Configuration = Configuration()) throws {
        var configuration = configuration
        var server: RESPConfiguration
        do {
            server = try RESPConfiguration(url: url)
        } catch {
            throw BackendError(.misuse, error.message)
        }
        let options = server.options
        func number(_ name: String, in range: ClosedRange<Int>) throws -> Int? {
            guard let text = options[name] else { return nil }
            guard let number = Int(text), range.contains(number) else {
                throw BackendError(.misuse, "\(name) must be a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        if let limit = try number("spin_limit", in: 0...1000) { server.spinLimit = .microseconds(limit) }
        if let prefix = options["prefix"] { configuration.keyPrefix = prefix }
        if let prefix = options["result_prefix"] { configuration.resultKeyPrefix = prefix }
        if let database = try number("result_db", in: 0...65535) {
            var results = server
            results.database = database
            configuration.results = results
        }
        if let bytes = try number("max_message_bytes", in: 1024...(1 << 40)) {
            var limits = WireLimits.default
            limits.maximumBytes = bytes
            WireLimits.setDefault(limits)
        }
        if let urgency = try number("unlabelled_urgency", in: 0...9) { configuration.unlabelledUrgency = urgency }
        if let steps = options["priority_steps"] {
            let numbers = steps.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
            guard !numbers.contains(nil) else {
                throw BackendError(.misuse, "priority_steps must be numbers with commas between")
            }
            configuration.prioritySteps = numbers.compactMap(\.self)
        }
        try self.init(server, configuration: configuration)
    }

    /// Closes every connection. Calls under way fail.
    public func close() {
        watcher.close()
        follower.close()
        subscriptions.close()
        client.close()
        resultClient?.close()
        for client in leaseClients.withLock({ Array($0.values) }) { client.close() }
    }

    deinit { close() }

    // MARK: - Calling scripts

    /// The time argument of a script: empty for the server's own time, or the time of a test's own clock.
    var timeArgument: RESPArgument { configuration.clock.map { .integer($0.now.microsecondsSinceEpoch) } ?? "" }
    var now: Int64 { clock.now.microsecondsSinceEpoch }
    var brokerDatabase: RESPArgument { .integer(Int64(client.configuration.database)) }

    func run(
        _ script: RESPScript, _ arguments: [RESPArgument], doing what: @autoclosure () -> String,
        then commands: [RESPCommand] = [],
        timeout: Duration? = nil
    ) async throws -> [RESPValue] {
        try await call(what()) {
            try await client.evaluate(script, keys: [keys.own], arguments: arguments, then: commands, timeout: timeout)
        }
    }

    func send(_ command: RESPCommand, doing what: @autoclosure () -> String) async throws -> RESPValue {
        var command = command
        command.route(by: keys.own)
        return try await call(what()) { [command] in try await client.send(command) }
    }

    func pipeline(_ commands: [RESPCommand], doing what: @autoclosure () -> String) async throws -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        let routed = commands.map { command in
            var command = command
            command.route(by: keys.own)
            return command
        }
        return try await call(what()) {
            let replies = try await client.send(pipeline: routed)
            for case .error(let error) in replies { throw error }
            return replies
        }
    }

    func call<T>(_ what: @autoclosure () -> String, _ body: () async throws -> T) async throws -> T {
        do {
            return try await body()
        } catch let error as RESPError {
            throw BackendError(redis: error, server: client.configuration.serverDescription, doing: what())
        } catch let error as RESPServerError {
            throw BackendError(redis: error, server: client.configuration.serverDescription, doing: what())
        }
    }
}

extension BackendError {
    init(redis error: RESPError, server: String, doing what: String) {
        let code: Code =
            switch error.code {
            case .timedOut: .timedOut
            case .invalidURL, .tls: .misuse
            default: .unavailable
            }
        self.init(
            code, "could not \(what) on Redis at \(server): \(error.message)", isRetrySafe: !error.mayHaveRun,
            cause: nil)
    }

    init(redis error: RESPServerError, server: String, doing what: String) {
        let (code, advice): (Code, String) =
            switch error.code {
            case "OOM": (.full, "; the server's maxmemory is reached: give it more, or have workers catch up")
            case "READONLY": (.readOnly, "; this is a replica: name the primary, or its sentinels")
            case "NOPERM": (.misuse, "; the user's ACL must allow it")
            case "MISCONF": (.readOnly, "; the server cannot save to its disk")
            case "LOADING", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS": (.busy, "")
            case "WRONGTYPE": (.corrupt, "; a key has the name of a queue and is none")
            default: (.unavailable, "")
            }
        self.init(
            code, "could not \(what) on Redis at \(server): \(error.message)\(advice)", isRetrySafe: true, cause: nil)
    }
}
