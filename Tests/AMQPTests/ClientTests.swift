import Endpoints
import Foundation
import HoistTesting
import NIOCore
import NIOPosix
import Synchronization
import TestServers
import Testing

@testable import AMQP

/// A real RabbitMQ, and what it does to a client.
@Suite("A client of RabbitMQ", .timeLimit(.minutes(3)))
struct ClientTests {
    private let server: RabbitServer
    private let virtualHost: String

    init() async throws {
        server = try await RabbitServer.shared
        virtualHost = try await server.makeVirtualHost()
    }

    private func configuration(port: Int? = nil, _ change: (inout AMQPConfiguration) -> Void = { _ in }) throws
        -> AMQPConfiguration
    {
        var configuration = try AMQPConfiguration(url: RabbitServer.url(port ?? server.port, virtualHost))
        change(&configuration)
        return configuration
    }

    private func connection(_ change: (inout AMQPConfiguration) -> Void = { _ in }) async throws -> (
        AMQPClient, AMQPConnection
    ) {
        let client = try AMQPClient(configuration(change))
        return (client, try await client.connection())
    }

    @Test("the connection says who it is, and learns who the server is")
    func connecting() async throws {
        let (client, connection) = try await connection { $0.connectionName = "test of names" }
        #expect(connection.serverProperties["product"]?.textValue == "RabbitMQ")
        #expect(connection.serverVersion != nil)
        try await eventually("the management knows the name") {
            try server.manage("/api/vhosts/\(virtualHost)/connections").contains("test of names")
        }
        client.close()
        try await eventually("closed") { connection.reason?.code == .closed }
    }

    @Test("a wrong password, a virtual host that is none, and no server at all")
    func refusals() async throws {
        var wrong = try configuration()
        wrong.authentication = { .plain(user: "guest", password: "secret") }
        var nowhere = try configuration()
        nowhere.virtualHost = "nowhere"
        var silent = try configuration()
        silent.servers = [.host("127.0.0.1", port: try RedisServer.freePort())]
        for (configuration, code) in [
            (wrong, AMQPError.Code.authentication), (nowhere, .authentication), (silent, .unreachable),
        ] {
            let error = await #expect(throws: AMQPError.self) {
                _ = try await AMQPClient(configuration).connection()
            }
            #expect(error?.code == code, "\(String(describing: error))")
            #expect(error?.message.contains("secret") == false)
        }
    }

    @Test("the first of several servers that answers is used")
    func failover() async throws {
        let unused = try RedisServer.freePort()
        let (client, connection) = try await connection {
            $0.servers = [.host("127.0.0.1", port: unused), .host("127.0.0.1", port: server.port)]
        }
        #expect(connection.address == .host("127.0.0.1", port: server.port))
        client.close()
    }

    @Test("messages go out with confirms, and come in with everything they had")
    func roundTrip() async throws {
        let (client, connection) = try await connection()
        let inbox = Inbox()
        let channel = try await connection.openChannel(inbox.events)
        try await channel.declare(queue: "q")
        try await channel.confirmPublishes()
        var message = AMQPMessage(body: (0..<300_000).map { UInt8(truncatingIfNeeded: $0) })
        message.properties = CodecTests.allProperties
        message.properties.expiration = nil
        message.properties.clusterID = nil
        // RabbitMQ knows no unsigned 64 bits beyond these types; all of them come back as they were sent.
        let publications = [message, text("small"), AMQPMessage(body: [])]
        let confirms = try await channel.publish(publications.map { .init($0, routingKey: "q") })
        #expect(confirms == [.confirmed, .confirmed, .confirmed])
        try await channel.consume("q", tag: "c")
        try await eventually("three deliveries") { inbox.deliveries.count == 3 }
        #expect(inbox.deliveries.map(\.message) == publications)
        #expect(inbox.deliveries.allSatisfy { $0.consumer == "c" && !$0.isRedelivered && $0.routingKey == "q" })
        channel.acknowledge(3, multiple: true)
        try await channel.settleAcknowledgements()
        try await channel.cancel(consumer: "c")
        #expect(try await channel.state(of: "q").messages == 0)
        client.close()
    }

    @Test("confirms of many concurrent publishers find their publishers, returns too")
    func pipelined() async throws {
        let (client, connection) = try await connection()
        let channel = try await connection.openChannel()
        try await channel.declare(queue: "q")
        try await channel.confirmPublishes()
        let outcomes = try await withThrowingTaskGroup(of: (Int, [AMQPConfirm]).self) { group in
            for number in 0..<500 {
                group.addTask {
                    // Every fifth has no queue.
                    let key = number % 5 == 0 ? "nowhere" : "q"
                    let publication = AMQPChannel.Publication(
                        text("m\(number)"), routingKey: key, isMandatory: true)
                    return (number, try await channel.publish([publication]))
                }
            }
            return try await group.reduce(into: [Int: AMQPConfirm]()) { $0[$1.0] = $1.1.first }
        }
        for number in 0..<500 {
            let expected: AMQPConfirm = number % 5 == 0 ? .returned(code: 312, reason: "NO_ROUTE") : .confirmed
            #expect(outcomes[number] == expected)
        }
        #expect(try await channel.state(of: "q").messages == 400)
        client.close()
    }

    @Test("a queue that is full of its own rules refuses, and the publisher hears it")
    func refusedPublish() async throws {
        let (client, connection) = try await connection()
        let channel = try await connection.openChannel()
        try await channel.declare(queue: "small", arguments: ["x-max-length": 1, "x-overflow": "reject-publish"])
        try await channel.confirmPublishes()
        let first = try await channel.publish([.init(text("a"), routingKey: "small")])
        let second = try await channel.publish([.init(text("b"), routingKey: "small")])
        #expect(first == [.confirmed])
        #expect(second == [.refused])
        client.close()
    }

    @Test("an error costs the channel, and nothing else of the connection")
    func channelErrors() async throws {
        let (client, connection) = try await connection()
        let other = try await connection.openChannel()
        for code in [404, 406] {
            let channel = try await connection.openChannel()
            try await channel.declare(queue: "plain")
            let error = await #expect(throws: AMQPError.self) {
                if code == 404 {
                    _ = try await channel.state(of: "missing")
                } else {
                    _ = try await channel.declare(queue: "plain", arguments: ["x-max-priority": 3])
                }
            }
            #expect(error?.code == .channelClosed)
            #expect(error?.replyCode == code)
            await #expect(throws: AMQPError.self) { try await channel.setPrefetch(1, isShared: false) }
        }
        try await other.declare(queue: "still-works")
        #expect(connection.reason == nil)
        client.close()
    }

    @Test("get, reject, nack, and a prefetch that is shared")
    func acknowledging() async throws {
        let (client, connection) = try await connection()
        let inbox = Inbox()
        let channel = try await connection.openChannel(inbox.events)
        try await channel.declare(queue: "q")
        try await channel.confirmPublishes()
        try await channel.publish((0..<6).map { .init(text("\($0)"), routingKey: "q") })
        let got = try #require(try await channel.get("q"))
        #expect(got.remaining == 5)
        channel.reject(got.delivery.tag, requeue: true)
        let again = try #require(try await channel.get("q"))
        #expect(again.delivery.isRedelivered)
        channel.reject(again.delivery.tag, requeue: false)
        try await channel.setPrefetch(2, isShared: true)
        try await channel.consume("q", tag: "c")
        try await eventually("two deliveries") { inbox.deliveries.count == 2 }
        // The prefetch grows while the consumer runs.
        try await channel.setPrefetch(4, isShared: true)
        try await eventually("four deliveries") { inbox.deliveries.count == 4 }
        channel.acknowledge(inbox.deliveries[0].tag)
        try await eventually("five deliveries") { inbox.deliveries.count == 5 }
        client.close()
    }

    @Test("a consumer whose queue is deleted is told")
    func consumerCancelled() async throws {
        let (client, connection) = try await connection()
        let inbox = Inbox()
        let channel = try await connection.openChannel(inbox.events)
        try await channel.declare(queue: "gone")
        try await channel.consume("gone", tag: "c")
        let other = try await connection.openChannel()
        try await other.delete(queue: "gone")
        try await eventually("told") { inbox.cancellations == ["c"] }
        client.close()
    }

    @Test("exchanges, bindings between them, and headers")
    func topology() async throws {
        let (client, connection) = try await connection()
        let topology = AMQPTopology(
            exchanges: [.init("in", .topic), .init("out", .fanout, isDurable: false), .init("h", .headers)],
            queues: [.init("q", arguments: ["x-max-priority": 10, "x-expires": .int64(5_000_000_000)]), .init("r")],
            bindings: [
                .init(.exchange("out"), to: "in", key: "a.#"), .init(.queue("q"), to: "out", key: ""),
                .init(.queue("r"), to: "h", key: "", arguments: ["x-match": "all", "kind": "video"]),
            ])
        #expect(try await topology.declare(on: connection) == [])
        // Twice is the same as once.
        #expect(try await topology.declare(on: connection) == [])
        var other = topology
        other.queues[0].arguments = [:]
        other.exchanges[0].type = .direct
        let differences = try await other.declare(on: connection)
        #expect(differences.count == 2)
        #expect(differences.contains { $0.contains("inequivalent arg") })
        let channel = try await connection.openChannel()
        try await channel.confirmPublishes()
        var video = text("v")
        video.properties.headers = ["kind": "video"]
        let confirms = try await channel.publish([
            .init(text("m"), exchange: "in", routingKey: "a.b.c", isMandatory: true),
            .init(text("n"), exchange: "in", routingKey: "b", isMandatory: true),
            .init(video, exchange: "h", routingKey: "", isMandatory: true),
        ])
        #expect(confirms == [.confirmed, .returned(code: 312, reason: "NO_ROUTE"), .confirmed])
        client.close()
    }

    @Test("a message over the limit is skipped, and the channel goes on")
    func oversized() async throws {
        let (client, connection) = try await connection { $0.limits.maximumBodyBytes = 1000 }
        let inbox = Inbox()
        let channel = try await connection.openChannel(inbox.events)
        try await channel.declare(queue: "q")
        try await channel.publish([
            .init(AMQPMessage(body: Array(repeating: 1, count: 400_000)), routingKey: "q"),
            .init(text("small"), routingKey: "q"),
        ])
        try await channel.consume("q")
        try await eventually("both") { inbox.deliveries.count == 2 }
        #expect(inbox.deliveries[0].message.skippedBytes == 400_000)
        #expect(inbox.deliveries[1].message.body == Array("small".utf8))
        client.close()
    }

    @Test("a silent server is noticed within two intervals, and a publish says that it may have run")
    func silence() async throws {
        let proxy = try TroubleProxy(to: server.port)
        let client = try AMQPClient(configuration(port: proxy.port) { $0.heartbeat = .seconds(1) })
        let connection = try await client.connection()
        #expect(connection.heartbeat == .seconds(1))
        let channel = try await connection.openChannel()
        try await channel.declare(queue: "q")
        try await channel.confirmPublishes()
        proxy.silence()
        let begun = ContinuousClock.now
        let error = await #expect(throws: AMQPError.self) {
            try await channel.publish([.init(text("m"), routingKey: "q")])
        }
        #expect(error?.code == .connectionLost)
        #expect(error?.mayHaveRun == true)
        #expect(ContinuousClock.now - begun < .seconds(10))
    }

    @Test("an idle connection lives on by its heartbeats")
    func idle() async throws {
        let (client, connection) = try await connection { $0.heartbeat = .seconds(1) }
        let begun = ContinuousClock.now
        try await eventually("five seconds have passed") { ContinuousClock.now - begun > .seconds(5) }
        #expect(connection.reason == nil)
        client.close()
    }

    /// A server that says one thing.
    private final class Greeter: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let greeting: String

        init(_ greeting: String) { self.greeting = greeting }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: greeting)), promise: nil)
        }
    }

    @Test(
        "bytes of no server of RabbitMQ's give an error at once",
        arguments: [
            "HTTP/1.1 400 Bad Request\r\n\r\n", "AMQP\u{0}\u{0}\u{9}\u{1}", "-ERR unknown command\r\n",
        ])
    func strangers(_ greeting: String) async throws {
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Greeter(greeting))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(listener.localAddress?.port)
        let error = await #expect(throws: AMQPError.self) {
            _ = try await AMQPClient(configuration(port: port)).connection()
        }
        #expect(error?.code == .protocolViolation)
        try await listener.close()
    }

}

/// Collects deliveries.
private final class Inbox: Sendable {
    private let received = Mutex<[AMQPDelivery]>([])
    private let cancelled = Mutex<[String]>([])

    var deliveries: [AMQPDelivery] { received.withLock { $0 } }
    var cancellations: [String] { cancelled.withLock { $0 } }
    var events: AMQPChannel.Events {
        AMQPChannel.Events(
            delivered: { deliveries in self.received.withLock { $0 += deliveries } },
            consumerCancelled: { tag in self.cancelled.withLock { $0.append(tag) } })
    }
}

private func eventually(_ what: Comment, _ condition: () async throws -> Bool) async throws {
    #expect(try await HoistTesting.eventually(.seconds(30), condition), what)
}

private func text(_ text: String) -> AMQPMessage {
    var message = AMQPMessage(body: Array(text.utf8))
    message.properties.deliveryMode = 2
    message.properties.correlationID = text
    return message
}

/// What takes a server of its own: one at a time, for a server takes seconds and both processors to start.
@Suite("A client, and a server in trouble", .serialized, .timeLimit(.minutes(3)))
struct ServerTroubleTests {
    @Test("a server without memory holds publishers back, until a deadline or until it has room")
    func blocked() async throws {
        let own = try await RabbitServer.started()
        let client = try AMQPClient(AMQPConfiguration(url: own.url()))
        let connection = try await client.connection()
        let channel = try await connection.openChannel()
        try await channel.declare(queue: "q")
        try await channel.confirmPublishes()
        try own.control("set_vm_memory_high_watermark", "0")
        // The alarm reaches a connection when that publishes.
        _ = try? await channel.publish([.init(text("first"), routingKey: "q")], within: .seconds(2))
        try await eventually("blocked") { connection.isBlocked }
        let error = await #expect(throws: AMQPError.self) {
            try await channel.publish([.init(text("late"), routingKey: "q")], within: .milliseconds(200))
        }
        #expect(error?.code == .blocked)
        #expect(error?.mayHaveRun == false)
        async let waiting = channel.publish([.init(text("patient"), routingKey: "q")], within: .seconds(60))
        try own.control("set_vm_memory_high_watermark", "0.6")
        #expect(try await waiting == [.confirmed])
        client.close()
    }

    @Test("everything is declared again after the server closed all connections, and after it was killed")
    func recovery() async throws {
        let own = try await RabbitServer.started()
        let client = try AMQPClient(AMQPConfiguration(url: own.url()))
        let inbox = Inbox()
        let opened = Mutex(0)
        let channel = AMQPRecoveringChannel(
            client,
            .init(
                prefetch: 10, topology: AMQPTopology(queues: [.init("q"), .init("own", isExclusive: true)]),
                consumers: [.init(queue: "q", tag: "c"), .init(queue: "own", tag: "d")]),
            events: .init(
                delivered: { deliveries, _ in inbox.events.delivered(deliveries) },
                opened: { number in opened.withLock { $0 = number } }))
        let running = Task { await channel.run() }
        let publisher = try AMQPClient(AMQPConfiguration(url: own.url()))
        for round in 1...3 {
            let open = try await channel.channel(within: .seconds(30))
            #expect(open.connection.reason == nil)
            let out = try await publisher.connection().openChannel()
            try await out.confirmPublishes()
            for key in ["q", "own"] {
                try await out.publish([.init(text("\(key)\(round)"), routingKey: key, isMandatory: true)])
            }
            try await eventually("both deliveries of round \(round)") {
                let texts = inbox.deliveries.compactMap(\.message.properties.correlationID)
                return texts.contains("q\(round)") && texts.contains("own\(round)")
            }
            let number = try #require(channel.current?.number)
            if round == 1 { try own.control("close_all_connections", "test") }
            if round == 2 {
                own.stop()
                try own.start()
            }
            if round < 3 { try await eventually("another channel") { (channel.current?.number ?? 0) > number } }
        }
        // What was not acknowledged came again.
        #expect(inbox.deliveries.contains { $0.isRedelivered && $0.message.properties.correlationID == "q1" })
        await channel.close()
        await running.value
        let error = await #expect(throws: AMQPError.self) { _ = try await channel.channel(within: .seconds(1)) }
        #expect(error?.code == .closed)
    }

    @Test("TLS: the server is verified, a certificate logs in, and a server of an unknown authority is refused")
    func tls() async throws {
        let certificates = try TestCertificates()
        let (certificate, key) = try certificates.make("localhost")
        let port = try RedisServer.freePort()
        let own = try await RabbitServer.started(
            """
            listeners.ssl.1 = 127.0.0.1:\(port)
            ssl_options.cacertfile = \(certificates.authority)
            ssl_options.certfile = \(certificate)
            ssl_options.keyfile = \(key)
            ssl_options.verify = verify_peer
            ssl_options.fail_if_no_peer_cert = false
            auth_mechanisms.1 = PLAIN
            auth_mechanisms.2 = EXTERNAL
            ssl_cert_login_from = common_name
            """, plugins: ["rabbitmq_auth_mechanism_ssl"])
        let trusting = try AMQPClient(
            AMQPConfiguration(url: "amqps://guest:guest@localhost:\(port)?cacertfile=\(certificates.authority)"))
        #expect(try await trusting.connection().reason == nil)
        trusting.close()
        // The name in the certificate is the user.
        let guest = try certificates.make("guest")
        let files = "cacertfile=\(certificates.authority)&certfile=\(guest.certificate)&keyfile=\(guest.key)"
        let external = try AMQPClient(
            AMQPConfiguration(url: "amqps://localhost:\(port)?\(files)&auth_mechanism=external"))
        #expect(try await external.connection().reason == nil)
        external.close()
        let strict = try AMQPClient(AMQPConfiguration(url: "amqps://guest:guest@localhost:\(port)"))
        let error = await #expect(throws: AMQPError.self) { try await strict.connection() }
        #expect(error?.code == .tls)
        _ = own
    }
}
