@testable import Hoist
import HoistSealing
import HoistTesting
import Logging
import Synchronization
import Testing

@Suite("Sealed jobs", .timeLimit(.minutes(3)))
struct SealingTests {
    private struct Transfer: Job {
        static let name = "transfer"
        var account: String
        var amount = 1
        typealias Output = String
    }

    private let silent = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    private let backend = MemoryBackend()

    private static func key(_ id: String, _ byte: UInt8 = 7) throws -> SealingKey {
        try SealingKey(id: id, secret: [UInt8](repeating: byte, count: 32))
    }

    private static func keys(_ mode: SealingKeys.Mode = .encrypted, _ id: String = "new", acceptsUnsealed: Bool = false)
        throws
        -> SealingKeys
    {
        try SealingKeys(mode, current: key(id), acceptsUnsealed: acceptsUnsealed)
    }

    private func client(_ sealing: (any Sealing)?) -> JobClient {
        JobClient(backend, configuration: .init(sealing: sealing), logger: silent)
    }

    /// Runs a worker until no job is left.
    private func work(_ sealing: (any Sealing)?) async throws {
        let configuration = Worker.Configuration(isBurst: true, client: .init(sealing: sealing))
        try await Worker(backend, configuration: configuration, logger: silent) {
            Handler(Transfer.self) { job, context in
                if job.account == "again", context.attempt == 1 {
                    let arguments = Arguments(keyword: ["account": "other", "amount": 9])
                    throw JobDirective.retry(after: .zero, arguments: arguments, maxAttempts: 2)
                }
                return "\(job.amount) to \(job.account)"
            }
        }.run()
    }

    /// The message of a waiting job, as any reader of the broker sees it.
    private func stolen(_ id: JobID, from client: JobClient) async throws -> Message {
        let thief = Thief()
        let configuration = JobClient.Configuration(sealing: client.configuration.sealing)
        try await JobClient(thief, configuration: configuration, logger: silent).enqueue(
            Transfer(account: "secret-account"), .id(id))
        return try #require(await thief.messages.first)
    }

    @Test(
        "arguments and output make the round trip, and neither the broker nor the result store can read them",
        arguments: [true, false])
    func roundTrip(isEncrypted: Bool) async throws {
        let keys = try Self.keys(isEncrypted ? .encrypted : .signed)
        let client = client(keys)
        let handle = try await client.enqueue(Transfer(account: "secret-account"))
        let message = try await stolen("x", from: client)
        let envelope = String(decoding: message.encodedEnvelope() + message.body, as: UTF8.self)
        #expect(envelope.contains("secret-account") == !isEncrypted)
        #expect(try await backend.record(of: handle.id)?.argumentsText.contains("secret-account") == !isEncrypted)
        try await work(keys)
        #expect(try await handle.output(timeout: .seconds(30)) == "1 to secret-account")
        let stored = try #require(try await handle.record()?.output)
        #expect("\(stored)".contains("hoist_sealed") && !"\(stored)".contains("secret-account"))
        await #expect(throws: WireError.self) {
            try await self.client(nil).handle(of: handle.id, Transfer.self).output()
        }
    }

    @Test(
        "a worker without the key refuses the job with a word about the key, loses nothing, and one with the key takes it up"
    )
    func withoutKey() async throws {
        let keys = try Self.keys()
        let handle = try await client(keys).enqueue(Transfer(account: "a"))
        try await work(nil)
        #expect(try await handle.record()?.failure?.message.contains("no keys") == true)
        #expect(try await backend.requeue(JobFilter(ids: [handle.id]), arguments: nil) == 1)
        try await work(try SealingKeys(.encrypted, current: Self.key("other")))
        let failure = try #require(try await handle.record()?.failure)
        #expect(failure.kind == .undecodable && failure.message.contains("the key new"))
        #expect(try await backend.requeue(JobFilter(ids: [handle.id]), arguments: nil) == 1)
        try await work(keys)
        #expect(try await handle.output(timeout: .seconds(30)) == "1 to a")
    }

    @Test("a worker with keys refuses jobs that are not sealed, unless it is told to take them")
    func unsealed() async throws {
        let handle = try await client(nil).enqueue(Transfer(account: "a"))
        try await work(try Self.keys(.signed))
        #expect(try await handle.record()?.failure?.message.contains("not sealed") == true)
        #expect(try await backend.requeue(JobFilter(ids: [handle.id]), arguments: nil) == 1)
        try await work(try Self.keys(.signed, acceptsUnsealed: true))
        #expect(try await handle.output(timeout: .seconds(30)) == "1 to a", "and its output is not sealed either")
    }

    @Test("keys rotate: what older keys sealed is opened, what is sealed now is with the new one")
    func rotation() async throws {
        let old = try Self.keys(.signed, "old")
        let first = try await client(old).enqueue(Transfer(account: "a"))
        let both = try SealingKeys(.encrypted, current: Self.key("new", 9), older: [Self.key("old")])
        let second = try await client(both).enqueue(Transfer(account: "b"))
        try await work(both)
        let reader = client(both)
        #expect(try await reader.handle(of: first.id, Transfer.self).output() == "1 to a")
        #expect(try await second.output() == "1 to b")
        // With the old key alone the output cannot be opened.
        await #expect(throws: WireError.self) {
            try await self.client(old).handle(of: second.id, Transfer.self).output()
        }
    }

    @Test("an output from which the seal was left off is not believed")
    func forgedOutput() async throws {
        let handle = try await client(nil).enqueue(Transfer(account: "a"))
        try await work(nil)
        #expect(try await client(nil).handle(of: handle.id, Transfer.self).output() == "1 to a")
        let strict = try client(Self.keys())
        await #expect(throws: WireError.self) { try await strict.handle(of: handle.id, Transfer.self).output() }
        let lenient = try client(Self.keys(acceptsUnsealed: true))
        #expect(try await lenient.handle(of: handle.id, Transfer.self).output() == "1 to a")
    }

    @Test("a sealed body is of no use for another job", arguments: [true, false])
    func replay(isEncrypted: Bool) async throws {
        let keys = try Self.keys(isEncrypted ? .encrypted : .signed)
        let client = client(keys)
        var message = try await stolen("x", from: client)
        message.headers.id = "y"
        var renamed = try await stolen("z", from: client)
        renamed.headers.task = "close_account"
        _ = try await backend.publish([message])
        try await work(keys)
        #expect(try await backend.record(of: "y")?.failure?.message.contains("for another job") == true)
        let configuration = Worker.Configuration(isBurst: true, client: .init(sealing: keys))
        _ = try await backend.publish([renamed])
        try await Worker(backend, configuration: configuration, logger: silent) {
            Handler(named: "close_account") { _, _ in "done" }
        }.run()
        #expect(try await backend.record(of: "z")?.state == .failed)
    }

    @Test("whatever is changed in a sealed body is noticed, and nothing traps", arguments: [true, false])
    func tampering(isEncrypted: Bool) async throws {
        let keys = try Self.keys(isEncrypted ? .encrypted : .signed)
        let purpose = Array("purpose".utf8)
        let payload = Array("payload of some length".utf8)
        let sealed = try keys.seal(payload, for: purpose)
        #expect(try keys.open(sealed, for: purpose) == payload)
        #expect(throws: WireError.self) { try keys.open(sealed, for: purpose + [0]) }
        for index in sealed.indices {
            var changed = sealed
            changed[index] ^= 1
            #expect(throws: WireError.self, "byte \(index)") { try keys.open(changed, for: purpose) }
        }
        for length in 0..<sealed.count {
            #expect(throws: WireError.self) { try keys.open(Array(sealed.prefix(length)), for: purpose) }
        }
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<1000 {
            let noise = (0..<Int.random(in: 0..<200, using: &generator)).map { _ in
                UInt8.random(in: .min ... .max, using: &generator)
            }
            #expect(throws: WireError.self) { try keys.open(noise, for: purpose) }
        }
        var other = Array("hoist1 HS256 new\n".utf8)
        other += sealed.drop { $0 != UInt8(ascii: "\n") }.dropFirst()
        if isEncrypted {
            #expect(throws: WireError.self, "under another algorithm") { try keys.open(other, for: purpose) }
        }
    }

    @Test("new arguments for the next attempt are sealed again; a person without the key cannot change them")
    func changedArguments() async throws {
        let keys = try Self.keys()
        let handle = try await client(keys).enqueue(Transfer(account: "again"))
        let error = await #expect(throws: BackendError.self) {
            try await backend.edit(handle.id, .arguments(Arguments(keyword: ["account": "mine"])))
        }
        #expect(error?.code == .misuse)
        #expect(try await backend.arguments(of: handle.id) == nil)
        try await work(keys)
        #expect(try await handle.output(timeout: .seconds(30)) == "9 to other")
    }

    @Test("a job that replaces a waiting one may still be opened under the id of that one")
    func replacement() async throws {
        let keys = try Self.keys()
        let unique = UniqueKey("only-one", onClash: .replace)
        let client = client(keys)
        // The first job was enqueued without the policy to replace.
        let first = try await client.enqueue(Transfer(account: "a"), .unique(UniqueKey("only-one")))
        let second = try await client.enqueue(Transfer(account: "b"), .unique(unique))
        #expect(first.id == second.id && !second.isNew)
        try await work(keys)
        #expect(try await first.output(timeout: .seconds(30)) == "1 to b")
    }

    @Test("what is sealed is shown to nobody who asks the worker, and told in no event")
    func unseen() async throws {
        let keys = try Self.keys()
        let client = client(keys)
        let fleet = try Fleet(backend)
        let worker = Worker(
            backend, configuration: .init(name: "w@h", client: .init(sealing: keys), events: .always), logger: silent
        ) {
            Handler(Transfer.self) { _, _ in
                try await Task.sleep(for: .seconds(60))
                return ""
            }
        }
        var texts = ""
        let events = try await fleet.heardEvents()
        let running = Task { try await worker.run() }
        try await client.enqueue(Transfer(account: "secret-account"))
        for await event in events {
            texts += "\(event.facts.fields)"
            if event.facts.type == "task-started" { break }
        }
        let active = try await fleet.replies(to: .active, of: .node("w@h"), timeout: .seconds(20))["w@h"]
        #expect(
            active?.arrayValue?.count == 1 && !"\(active ?? .null)".contains("secret-account"), "\(active ?? .null)")
        #expect(!texts.contains("secret-account"))
        worker.stop(.immediately)
        try await running.value
    }

    @Test("compressed arguments are sealed and opened like others")
    func compressed() async throws {
        let keys = try Self.keys()
        let client = JobClient(backend, configuration: .init(compressesAbove: 100, sealing: keys), logger: silent)
        let account = String(repeating: "long ", count: 1000)
        let handle = try await client.enqueue(Transfer(account: account))
        try await work(keys)
        #expect(try await handle.output(timeout: .seconds(30)) == "1 to " + account)
    }

    @Test("a sealed body is run by no handler but its own, also where a message names two jobs")
    func otherHandler() async throws {
        let keys = try Self.keys()
        let thief = Thief()
        try await JobClient(thief, configuration: .init(sealing: keys), logger: silent).enqueue(
            Transfer(account: "a"), .id("4711"))
        let stolen = try #require(await thief.messages.first)
        let text = String(decoding: stolen.encodedEnvelope(), as: UTF8.self)
        // What a script reads first, and what a parser keeps, would be two names.
        let twoNames = text.replacing(
            "\"id\":\"4711\"", with: "\"id\":\"4711\",\"task\":\"admin.delete\"", maxReplacements: 1)
        #expect(throws: WireError.self) { try Message(envelope: Array(twoNames.utf8)) }
        // A broker that says another name than the message.
        var ran = false
        let worker = Worker(
            Liar(message: stolen, name: "admin.delete"), configuration: .init(client: .init(sealing: keys)),
            logger: silent
        ) { Handler(named: "admin.delete") { _, _ in .null } }
        let running = Task { try await worker.run() }
        #expect(try await eventually { Liar.outcome.withLock { $0 } != nil })
        if case .failed(let failure)? = Liar.outcome.withLock({ $0 }) {
            #expect(failure.kind == .undecodable && failure.message.contains("another job"))
        } else {
            ran = true
        }
        #expect(!ran)
        worker.stop(.immediately)
        try await running.value
    }

    @Test("a sealed job is no broadcast, and a broadcast is no job, nor one of another channel")
    func purposes() async throws {
        let keys = try Self.keys()
        let thief = Thief()
        try await JobClient(thief, configuration: .init(sealing: keys), logger: silent).enqueue(Transfer(account: "a"))
        let job = try #require(await thief.messages.first)
        #expect(throws: WireError.self) { try job.opened(with: keys, onChannel: "news") }
        var broadcast = Message(
            headers: MessageHeaders(task: "t", id: "i"),
            properties: MessageProperties(routingKey: "", deliveryTag: "d"), body: Array("[[],{},{}]".utf8))
        try broadcast.seal(with: keys, onChannel: "news")
        #expect(throws: WireError.self) { try broadcast.opened(with: keys) }
        #expect(throws: WireError.self) { try broadcast.opened(with: keys, onChannel: "other") }
        #expect(try broadcast.opened(with: keys, onChannel: "news").body == Array("[[],{},{}]".utf8))
    }

    @Test("keys that cannot be used are refused without their secret")
    func badKeys() throws {
        #expect(throws: SealingKeyError.self) { try SealingKey(id: "short", secret: [1, 2, 3]) }
        #expect(throws: SealingKeyError.self) {
            try SealingKey(id: "two words", secret: [UInt8](repeating: 1, count: 32))
        }
        #expect(throws: SealingKeyError.self) { try SealingKey(id: "a", base64: "not base64!") }
        #expect(throws: SealingKeyError.self) {
            try SealingKeys(.signed, current: Self.key("a"), older: [Self.key("a", 9)])
        }
        _ = try SealingKey(id: "a", base64: " AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
    }
}

/// Keeps published messages, and does nothing else.
private actor Thief: Broker, BackendConvertible {
    private(set) var messages: [Message] = []
    nonisolated let clock: any JobClock = SystemJobClock()
    nonisolated let workDoorbell = Doorbell()
    nonisolated let abilities: BrokerAbilities = []
    nonisolated var backend: Backend { Backend(broker: self, results: MemoryBackend()) }

    func publish(_ messages: [Message]) async throws -> [PublishResult] {
        self.messages += messages
        return messages.map { _ in .enqueued }
    }

    func publish(_ messages: [Message], within limit: Duration) async throws -> [PublishResult] {
        try await publish(messages)
    }

    func cancel(_ id: JobID) async throws -> CancelResult { .unknown }

    func open(_ worker: WorkerPresence, lease: Duration, sink: any SessionSink) async throws -> any WorkerSession {
        throw BackendError(.misuse, "nobody works here")
    }
}

/// A broker that hands out one message under a name of its own, and keeps the outcome.
private struct Liar: Broker, BackendConvertible {
    static let outcome = Mutex<Outcome?>(nil)
    let message: Message
    let name: String
    let clock: any JobClock = SystemJobClock()
    let workDoorbell = Doorbell()
    let abilities: BrokerAbilities = [.selectsByName]
    var backend: Backend { Backend(broker: self, results: MemoryBackend()) }

    func publish(_ messages: [Message]) async throws -> [PublishResult] { messages.map { _ in .enqueued } }
    func cancel(_ id: JobID) async throws -> CancelResult { .unknown }

    func open(_ worker: WorkerPresence, lease: Duration, sink: any SessionSink) async throws -> any WorkerSession {
        Session(message: message, name: name)
    }

    final class Session: WorkerSession {
        private let isGiven = Mutex(false)
        let message: Message
        let name: String

        init(message: Message, name: String) { (self.message, self.name) = (message, name) }

        func turn(_ turn: WorkerTurn) async throws -> TurnResult {
            if let settlement = turn.settlements.first { Liar.outcome.withLock { $0 = settlement.outcome } }
            let isFirst = isGiven.withLock { isGiven in
                defer { isGiven = isGiven || !turn.claims.isEmpty }
                return !isGiven && !turn.claims.isEmpty
            }
            guard isFirst else { return TurnResult() }
            return TurnResult(deliveries: [
                Delivery(
                    jobID: message.id, jobName: name, queue: "default", payload: .message(message), attempt: 1,
                    lostWorkers: 0, token: 1)
            ])
        }

        func renew(_ worker: WorkerPresence) async throws -> Bool { true }
        func close() async throws {}
    }
}
