import Testing

@testable import RESP

@Suite("URLs of servers")
struct URLTests {
    @Test("a server, with everything and with nothing")
    func server() throws {
        let full = try RESPConfiguration(url: "redis://ada:s%3Aecret%40@example.com:7000/3")
        #expect(full.topology == .servers([.host("example.com", port: 7000)]))
        #expect(full.credentials() == .init(username: "ada", password: "s:ecret@"))
        #expect(full.database == 3 && full.tls == nil)
        let bare = try RESPConfiguration(url: "redis://localhost")
        #expect(
            bare.topology == .servers([.host("localhost", port: 6379)]) && bare.credentials() == nil
                && bare.database == 0)
        #expect(try RESPConfiguration(url: "redis://:p@h/").credentials() == .init(password: "p"))
        #expect(try RESPConfiguration(url: "valkey://[::1]:6380").topology == .servers([.host("::1", port: 6380)]))
        #expect(!full.serverDescription.contains("ecret"))
    }

    @Test(
        "the password of a socket is read from the query, as Python's clients do",
        arguments: [
            "unix:///run/r.sock?db=1&password=s%3Ae%2Fc%40r%23e%3Ft",
            "unix://default@/run/r.sock?db=1&password=s%3Ae%2Fc%40r%23e%3Ft",
            "redis+socket:///run/r.sock?virtual_host=1&password=s%3Ae%2Fc%40r%23e%3Ft",
        ])
    func socketPasswords(url: String) throws {
        let configuration = try RESPConfiguration(url: url)
        #expect(configuration.topology == .servers([.unix("/run/r.sock")]) && configuration.database == 1)
        #expect(configuration.credentials()?.password == "s:e/c@r#e?t")
    }

    @Test("TLS is verified unless the URL says otherwise")
    func tls() throws {
        let secure = try RESPConfiguration(
            url: "rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem"
        ).tls
        #expect(
            secure?.verifiesCertificate == true && secure?.verifiesHostname == true
                && secure?.trustedCertificatesFile == "/ca.pem")
        #expect(secure?.certificateFile == "/c.pem" && secure?.keyFile == "/k.pem")
        #expect(try RESPConfiguration(url: "rediss://h?ssl_cert_reqs=CERT_NONE").tls?.verifiesCertificate == false)
        let lax = try RESPConfiguration(url: "rediss://h?ssl_cert_reqs=required&ssl_check_hostname=false").tls
        #expect(lax?.verifiesCertificate == true && lax?.verifiesHostname == false)
    }

    @Test("sockets, lists of servers, sentinels and clusters")
    func forms() throws {
        #expect(
            try RESPConfiguration(url: "unix:///run/redis.sock?db=2").topology == .servers([.unix("/run/redis.sock")]))
        #expect(try RESPConfiguration(url: "redis+socket:///run/redis.sock?virtual_host=2").database == 2)
        #expect(
            try RESPConfiguration(url: "redis://a/1;redis://b/1").topology
                == .servers([.host("a", port: 6379), .host("b", port: 6379)]))
        let sentinel = try RESPConfiguration(
            url: "sentinel://:pw@one:26379/5;sentinel://two?master_name=main&sentinel_password=x")
        #expect(
            sentinel.topology == .sentinels([.host("one", port: 26379), .host("two", port: 26379)], primary: "main"))
        #expect(
            sentinel.database == 5 && sentinel.credentials()?.password == "pw"
                && sentinel.sentinelCredentials?.password == "x")
        let cluster = try RESPConfiguration(url: "redis+cluster://a:7000;b:7001")
        #expect(cluster.topology == .cluster([.host("a", port: 7000), .host("b", port: 7001)]))
    }

    @Test("what is wrong is said, without the URL")
    func refused() throws {
        #expect(try RESPConfiguration(url: "redis://h//1?=&x").database == 1)
        #expect(
            try RESPConfiguration(url: "redis+socket:///run/redis@1/r.sock").topology
                == .servers([.unix("/run/redis@1/r.sock")]))
        #expect(
            try RESPConfiguration(url: "rediss://h?ssl_cert_reqs=optional&ssl_check_hostname=on").tls?.verifiesHostname
                == true)
        for url in [
            "", "localhost", "http://x", "redis://h:99999", "redis://h/x", "sentinel://h",
            "rediss://h?ssl_cert_reqs=maybe",
            "unix://relative",
            "redis+cluster://h/3", "redis://u:%zz@h",
        ] {
            let error = #expect(throws: RESPError.self, "\(url)") { try RESPConfiguration(url: url) }
            #expect(error?.code == .invalidURL)
            if !url.isEmpty { #expect(error?.message.contains(url) != true) }
        }
    }
}
