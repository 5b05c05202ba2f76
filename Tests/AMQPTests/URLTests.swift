import Endpoints
import Testing

@testable import AMQP

@Suite("URLs of RabbitMQ") struct URLTests {
    @Test(
        "servers, users, virtual hosts",
        arguments: [
            ("amqp://localhost", "localhost:5672", "guest", "/"),
            ("amqp://", "localhost:5672", "guest", "/"),
            ("pyamqp://ada:s%40crt@mq.example.com:5673/shop", "mq.example.com:5673", "ada", "shop"),
            ("amqp://ada@host/%2F", "host:5672", "ada", "/"),
            ("amqp://ada:x@host//", "host:5672", "ada", "/"),
            ("amqp://[::1]:1/a%2Fb?heartbeat=3", "[::1]:1", "guest", "a/b"),
            ("amqp://one/x;two:7;amqp://three", "one:5672, two:7, three:5672", "guest", "x"),
        ])
    func servers(_ url: String, _ servers: String, _ user: String, _ virtualHost: String) throws {
        let configuration = try AMQPConfiguration(url: url)
        #expect(configuration.serverDescription == servers)
        #expect(configuration.authentication().user == user)
        #expect(configuration.virtualHost == virtualHost)
        #expect(configuration.tls == nil)
    }

    @Test("TLS is verified unless the URL says otherwise")
    func tls() throws {
        let configuration = try AMQPConfiguration(
            url: "amqps://a:b@host?cacertfile=%2Fca.pem&certfile=c.pem&keyfile=k.pem&auth_mechanism=external")
        #expect(configuration.servers == [.host("host", port: 5671)])
        #expect(configuration.tls?.verifiesCertificate == true)
        #expect(configuration.tls?.verifiesHostname == true)
        #expect(configuration.tls?.trustedCertificatesFile == "/ca.pem")
        #expect(configuration.tls?.keyFile == "k.pem")
        #expect(configuration.authentication() == .external)
        let trusting = try AMQPConfiguration(url: "amqps://host?verify=verify_none")
        #expect(trusting.tls?.verifiesCertificate == false)
        let kombu = try AMQPConfiguration(url: "amqps://host?ssl_ca_certs=x.pem&ssl_cert_reqs=none")
        #expect(kombu.tls?.trustedCertificatesFile == "x.pem")
        #expect(kombu.tls?.verifiesCertificate == false)
    }

    @Test("options")
    func options() throws {
        let configuration = try AMQPConfiguration(
            url: "amqp://h?heartbeat=5&connection_timeout=1500&channel_max=9&frame_max=8192&name=web")
        #expect(configuration.heartbeat == .seconds(5))
        #expect(configuration.connectTimeout == .milliseconds(1500))
        #expect(configuration.channelMaximum == 9)
        #expect(configuration.frameMaximum == 8192)
        #expect(configuration.connectionName == "web")
    }

    @Test(
        "malformed URLs are refused without their text",
        arguments: [
            "", "host", "http://h", "amqp://h:99999", "amqp://secret%zz@h", "amqp://h?heartbeat=x",
            "amqp://h?frame_max=1",
            "amqps://h?verify=maybe", "amqp://a;amqps://b", "amqp://h?auth_mechanism=magic",
            "amqps://h?ssl_cert_reqs=x",
        ])
    func malformed(_ url: String) {
        let error = #expect(throws: AMQPError.self) { try AMQPConfiguration(url: url) }
        #expect(error?.code == .invalidURL)
        #expect(error?.message.contains("secret") == false)
    }
}
