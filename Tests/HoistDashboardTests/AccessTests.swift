import Foundation
import HTTPTypes
import Hoist
@testable import HoistDashboard
import HoistTesting
import Hummingbird
import HummingbirdTesting
import NIOCore
import TestServers
import Testing

/// Who may see and do what.
@Suite("Access to the dashboard", .timeLimit(.minutes(3)))
struct AccessTests {
    private static let requests: [(host: String, peer: String?, isAllowed: Bool)] = [
        ("localhost:5580", "127.0.0.1", true), ("127.0.0.1", "127.0.0.1", true), ("[::1]:5580", "::1", true),
        ("LOCALHOST", "::ffff:127.0.0.1", true), ("tools.lan", "127.0.0.1", true), ("evil.example", "127.0.0.1", false),
        ("localhost.evil.example", "127.0.0.1", false), ("", "127.0.0.1", false), ("localhost", "10.0.0.7", false),
        ("localhost", nil, false), ("127.0.0.1", "", false), ("localhost", "1270.0.0.1", false),
    ]

    @Test("only this machine is answered, and only under its own names", arguments: requests)
    func hosts(host: String, peer: String?, isAllowed: Bool) async throws {
        let guarding = try Bench(access: .loopbackOnly(hosts: ["tools.lan"])).dashboard.guarding
        let request = HTTPRequest(method: .get, scheme: "http", authority: host, path: "/")
        if isAllowed {
            let identity = try await guarding.admit(request, peer: peer, right: .act, changes: false, at: Date())
            #expect(identity == .thisMachine)
        } else {
            let refusal = await #expect(throws: RequestGuard.Refusal.self) {
                try await guarding.admit(request, peer: peer, right: nil, changes: false, at: Date())
            }
            #expect(refusal?.status == .forbidden)
        }
    }

    @Test("every route that changes something wants to know where the request comes from; none does when read-only")
    func crossSite() async throws {
        let site = try #require(HTTPField.Name("Sec-Fetch-Site"))
        let changing = DashboardRoute.all.filter { $0.method != .get && $0.method != .head }
        #expect(!changing.isEmpty && changing.allSatisfy(\.changes))
        for isReadOnly in [false, true] {
            let bench = try Bench(isReadOnly: isReadOnly)
            try await bench.application().test(.live) { client async throws -> Void in
                for route in changing {
                    let uri = "/" + route.path.replacing(":id", with: "x")
                    func status(_ headers: HTTPFields) async throws -> HTTPResponse.Status {
                        try await client.execute(
                            uri: uri, method: route.method, headers: headers, body: ByteBuffer(string: "action=none")
                        ).status
                    }
                    for headers: HTTPFields in [
                        [:], [site: "cross-site"], [site: "same-site"], [site: "none"],
                        [.origin: "http://evil.example"],
                        [.origin: "null"], [site: "cross-site", .origin: "http://localhost"],
                    ] {
                        #expect(try await status(headers) == .forbidden, "\(uri) \(headers)")
                    }
                    let found = try await status([site: "same-origin"])
                    // Logging in and out is no change of the fleet. A wrong name is answered as a page.
                    if route.path == "login" || route.path == "logout" {
                        #expect(found == (route.path == "login" ? .forbidden : .seeOther), "\(uri)")
                    } else if isReadOnly {
                        #expect(found == .forbidden, "\(uri)")
                    } else {
                        #expect([.badRequest, .notFound, .ok].contains(found), "\(uri) \(found)")
                    }

                }
            }
        }
    }

    // MARK: - Users and tokens

    private static let site = HTTPField.Name("Sec-Fetch-Site")!

    /// A dashboard with a user of each role and a token of each right.
    private struct Guarded {
        let bench: Bench
        let users: DashboardUsers
        let tokens: [DashboardRight: String]
        private let folder: TemporaryFolder
        let path: String

        init(isReadOnly: Bool = false, access: DashboardAccess = .users()) throws {
            folder = try TemporaryFolder()
            path = folder.path("history.db")
            users = try DashboardUsers(path: path, cost: Bench.cost)
            for role in DashboardRole.allCases {
                try users.set(role.rawValue, password: "password of \(role.rawValue)", role: role)
            }
            var tokens: [DashboardRight: String] = [:]
            for right in DashboardRight.allCases {
                tokens[right] = try users.makeToken("for \(right.rawValue)", rights: [right])
            }
            self.tokens = tokens
            bench = try Bench(isReadOnly: isReadOnly, access: access, store: .file(path))
        }

        static func basic(_ name: String, _ password: String) -> String {
            "Basic " + Data("\(name):\(password)".utf8).base64EncodedString()
        }

        static func basic(_ role: DashboardRole) -> String { basic(role.rawValue, "password of \(role.rawValue)") }
    }

    @Test("every route lets in who has the right to it, and nobody else")
    func table() async throws {
        let guarded = try Guarded()
        var callers: [(name: String, authorization: String?, rights: Set<DashboardRight>)] = [("nobody", nil, [])]
        for role in DashboardRole.allCases { callers.append((role.rawValue, Guarded.basic(role), role.rights)) }
        for (right, token) in guarded.tokens { callers.append(("token \(right)", "Bearer " + token, [right])) }
        let everybody = callers
        // Streams do not end by themselves; that they are closed is seen by what is refused.
        try await guarded.bench.application().test(.live) { client async throws -> Void in
            for route in DashboardRoute.all where route.path != "login" {
                for caller in everybody {
                    var headers: HTTPFields = [Self.site: "same-origin"]
                    if let authorization = caller.authorization { headers[.authorization] = authorization }
                    let isAllowed = route.right.map(caller.rights.contains) ?? true
                    if route.isStream, isAllowed { continue }
                    let uri = "/" + route.path.replacing(":id", with: route.path.hasPrefix("assets") ? "icon.svg" : "x")
                    let status = try await client.execute(
                        uri: uri, method: route.method, headers: headers, body: ByteBuffer(string: "action=none")
                    ).status
                    let what = "\(route.method) /\(route.path) as \(caller.name): \(status)"
                    if isAllowed {
                        #expect(![.unauthorized, .forbidden].contains(status), "\(what)")
                    } else if caller.authorization == nil {
                        let leads = route.isPage && route.method == .get && !route.isStream
                        #expect(status == (leads ? .seeOther : .unauthorized), "\(what)")
                    } else {
                        #expect(status == .forbidden, "\(what)")
                    }
                }
            }
        }
    }

    @Test("a person logs in, is known by a cookie, and is not after logging out or another password")
    func session() async throws {
        let guarded = try Guarded()
        try await guarded.bench.application(at: "hoist").test(.live) { client async throws -> Void in
            func post(_ path: String, _ form: String, cookie: String? = nil) async throws -> TestResponse {
                var headers: HTTPFields = [Self.site: "same-origin"]
                if let cookie { headers[.cookie] = cookie }
                return try await client.execute(
                    uri: "/hoist" + path, method: .post, headers: headers, body: ByteBuffer(string: form))
            }
            func status(_ path: String, _ cookie: String) async throws -> HTTPResponse.Status {
                try await client.execute(uri: "/hoist" + path, method: .get, headers: [.cookie: cookie]).status
            }
            let led = try await client.execute(uri: "/hoist/jobs?q=state:failed", method: .get)
            #expect(led.status == .seeOther)
            #expect(led.headers[.location] == "/hoist/login?next=%2Fhoist%2Fjobs%3Fq%3Dstate%3Afailed")
            let form = text(try await client.execute(uri: led.headers[.location] ?? "", method: .get))
            #expect(form.contains("value=\"/hoist/jobs?q=state:failed\"") && form.contains("type=\"password\""))

            let wrong = try await post("/login", "name=viewer&password=guess")
            #expect(wrong.status == .forbidden && wrong.headers[.setCookie] == nil)
            let right = try await post("/login", "name=viewer&password=password+of+viewer&next=%2Fhoist%2Fjobs")
            #expect(right.status == .seeOther && right.headers[.location] == "/hoist/jobs")
            let given = try #require(right.headers[.setCookie])
            #expect(given.contains("HttpOnly") && given.contains("SameSite=Lax") && !given.contains("Secure"))
            let cookie = String(given.prefix { $0 != ";" })
            #expect(try await status("/jobs", "a=b; " + cookie) == .ok)
            let page = text(
                try await client.execute(uri: "/hoist/queues/mail", method: .get, headers: [.cookie: cookie]))
            #expect(page.contains("Log out") && page.contains("viewer") && !page.contains("Purge"))
            #expect(try await post("/queues/mail", "action=pause", cookie: cookie).status == .forbidden)
            #expect(try await status("/jobs", cookie + "x") == .seeOther)
            #expect(try await post("/logout", "", cookie: cookie).status == .seeOther)
            #expect(try await status("/jobs", cookie) == .seeOther, "the session has ended on the server too")

            let again = try await post("/login", "name=operator&password=password+of+operator")
            let other = String((again.headers[.setCookie] ?? "").prefix { $0 != ";" })
            #expect(try await post("/queues/mail", "action=pause", cookie: other).status == .seeOther)
            let audit = try await guarded.bench.dashboard.store.audit(limit: 1)
            #expect(audit.first?.author == "operator")
            try guarded.users.set("operator", password: "another password", role: .operator)
            #expect(try await status("/jobs", other) == .seeOther, "another password ends sessions")
            // Stored is a digest, not what the browser has.
            let bytes = try Data(contentsOf: URL(fileURLWithPath: guarded.path))
            #expect(bytes.range(of: Data("password of".utf8)) == nil)
        }
    }

    @Test(
        "after logging in nobody is led elsewhere",
        arguments: [
            "//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
            "/other", "/hoist/\r\nSet-Cookie: a=b", "", "/hoist",
        ])
    func next(path: String) {
        #expect(Dashboard.own(path, "/hoist") == "/hoist/")
        #expect(Dashboard.own("/hoist/jobs?q=a", "/hoist") == "/hoist/jobs?q=a")
        #expect(Dashboard.own("//evil.example", "") == "/")
    }

    @Test("who guesses passwords has to wait, longer and longer")
    func throttle() async throws {
        let guarded = try Guarded()
        try await guarded.bench.application().test(.live) { client async throws -> Void in
            func status(_ password: String) async throws -> (HTTPResponse.Status, String?) {
                let response = try await client.execute(
                    uri: "/api/v1/jobs", method: .get,
                    headers: [.authorization: Guarded.basic("admin", password)])
                return (response.status, response.headers[.retryAfter])
            }
            for number in 0..<5 { #expect(try await status("guess \(number)").0 == .unauthorized) }
            // From here on it takes as many tries as it takes seconds, or a pause.
            let refused = try await status("guess 6")
            #expect(refused.0 == .tooManyRequests && refused.1 != nil)
            #expect(try await status("password of admin").0 == .tooManyRequests, "also with the right one")
        }
        let throttle = LoginThrottle()
        var now = ContinuousClock.now
        let (mine, other) = (
            LoginThrottle.Attempt(name: "a", address: "10.0.0.1"), LoginThrottle.Attempt(name: "a", address: "10.0.0.2")
        )
        for _ in 0..<5 { #expect(throttle.begin(mine, now: now) == nil) }
        #expect(throttle.begin(mine, now: now) == .seconds(1))
        // Each wait that was kept is followed by one that is twice as long.
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            #expect(throttle.begin(mine, now: now) == .seconds(pause))
            now += .seconds(pause)
            #expect(throttle.begin(mine, now: now) == nil)
        }
        #expect(throttle.begin(other, now: now) == .seconds(4), "the owner of the name is not kept out")
        now += .seconds(4)
        #expect(throttle.begin(other, now: now) == nil)
        throttle.succeeded(other)
        #expect(throttle.begin(.init(name: "b", address: "10.0.0.1"), now: now) != nil, "another name from there")
        let networks = ["2001:db8:1:2::1", "2001:db8:1:2::ffff"].map { LoginThrottle.Attempt(name: "c", address: $0) }
        for attempt in networks + networks + networks { _ = throttle.begin(attempt, now: now) }
        #expect(throttle.begin(.init(name: "d", address: "2001:db8:1:2::2"), now: now) != nil)
        for number in 0..<50_000 {
            _ = throttle.begin(.init(name: "x\(number)", address: "y\(number)"), now: now + .milliseconds(number))
        }
        #expect(throttle.count <= 20_000)
    }

    @Test("many guesses at the same time count as many")
    func parallelGuesses() async throws {
        let guarded = try Guarded()
        let guarding = guarded.bench.dashboard.guarding
        let ends = await withTaskGroup(of: HTTPResponse.Status?.self) { group in
            for number in 0..<60 {
                group.addTask {
                    do {
                        _ = try await guarding.logIn("admin", "guess \(number)", "10.0.0.9")
                        return nil
                    } catch {
                        return (error as? RequestGuard.Refusal)?.status
                    }
                }
            }
            return await group.reduce(into: [HTTPResponse.Status?]()) { $0.append($1) }
        }
        #expect(ends.count { $0 == .unauthorized } <= 6 && ends.count { $0 == .tooManyRequests } >= 54)
    }

    @Test("a password that was replaced is worth nothing from that moment on, and a stream ends with its session")
    func replaced() async throws {
        let guarded = try Guarded()
        let guarding = guarded.bench.dashboard.guarding
        let (_, hash) = try await guarding.verified("viewer", "password of viewer", "::1")
        #expect(try await guarded.bench.dashboard.store.beginSession("viewer", hash, at: Date()) != nil)
        try guarded.users.set("viewer", password: "another password", role: .operator)
        await #expect(throws: RequestGuard.Refusal.self) {
            try await guarding.logIn("viewer", "password of viewer", "::1")
        }
        #expect(try await guarded.bench.dashboard.store.beginSession("viewer", hash, at: Date()) == nil)
        #expect(try await guarding.logIn("viewer", "another password", "::1").rights.contains(.act))
        _ = try guarded.users.remove("viewer")
        await #expect(throws: RequestGuard.Refusal.self) {
            try await guarding.logIn("viewer", "another password", "::1")
        }
        try await guarded.bench.application().test(.live) { client async throws -> Void in
            let port = try #require(client.port)
            let token = guarded.tokens[.read] ?? ""
            async let stream = BuiltProgram.output(
                of: "/usr/bin/curl",
                [
                    "-s", "-N", "-m", "60", "-H", "Authorization: Bearer " + token,
                    "http://127.0.0.1:\(port)/stream?of=%2Fjobs",
                ])
            let isOpen = try await eventually { guarded.bench.dashboard.streams.count == 1 }
            #expect(isOpen)
            let begin = ContinuousClock.now
            _ = try guarded.users.removeToken("for read")
            let told = try await stream
            // It ends by the server: 28 would be the time-out of the client.
            #expect(told.status != 28 && begin.duration(to: .now) < .seconds(50), "\(told.status)")
            #expect(told.text.contains("event: sign"))
        }
    }

    @Test("a right password that is sent many times at once is one try")
    func parallelLogins() async throws {
        let guarded = try Guarded()
        let guarding = guarded.bench.dashboard.guarding
        let names = await withTaskGroup(of: String?.self) { group in
            for _ in 0..<40 {
                group.addTask { try? await guarding.logIn("operator", "password of operator", "10.0.0.9").name }
            }
            return await group.reduce(into: [String?]()) { $0.append($1) }
        }
        #expect(names.allSatisfy { $0 == "operator" }, "\(names)")
        for name in ["operator\u{0}x", String(repeating: "n", count: 101), ""] {
            await #expect(throws: RequestGuard.Refusal.self) {
                try await guarding.logIn(name, "password of operator", "10.0.0.9")
            }
        }
        #expect(try guarded.users.all().count == 3)
    }

    @Test("only their owner reads the files, and a proxy is no way in without users")
    func closed() async throws {
        let guarded = try Guarded()
        for suffix in ["", "-wal", "-shm"] where FileManager.default.fileExists(atPath: guarded.path + suffix) {
            let mode = try FileManager.default.attributesOfItem(atPath: guarded.path + suffix)[.posixPermissions]
            #expect((mode as? NSNumber)?.intValue == 0o600, "\(suffix)")
        }
        let policy = try #require(HTTPField.Name("Referrer-Policy"))
        // With no-referrer browsers send Origin: null with forms.
        #expect(RequestGuard.headers[policy] == "same-origin")
        try await Bench().application().test(.live) { client async throws -> Void in
            for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded"] {
                let field = try #require(HTTPField.Name(name))
                let status = try await client.execute(uri: "/jobs", method: .get, headers: [field: "10.0.0.1"]).status
                #expect(status == .forbidden, "\(name)")
            }
        }
        #expect(throws: BackendError.self) {
            try Bench(access: .users(), store: .file("/proc/hoist/history.db"))
        }
    }

    @Test("credentials that are none are refused, and change nothing")
    func credentials() async throws {
        let guarded = try Guarded()
        try await guarded.bench.application().test(.live) { client async throws -> Void in
            for authorization in [
                "Bearer", "Bearer hoist_x", "Basic", "Basic !!!", "Basic " + Data("nocolon".utf8).base64EncodedString(),
                "Digest a", Guarded.basic("nobody", "x"), Guarded.basic("admin", ""), Guarded.basic("", ""),
                "Bearer " + String(repeating: "x", count: 5000), "Bearer ' OR 1=1 --",
            ] {
                let response = try await client.execute(
                    uri: "/api/v1/jobs", method: .get, headers: [.authorization: authorization])
                #expect(
                    response.status == .unauthorized || response.status == .tooManyRequests,
                    "\(authorization.prefix(30))")
            }
            // A token may do what it is for from anywhere, for no browser sends it by itself.
            let response = try await client.execute(
                uri: "/queues/mail", method: .post,
                headers: [.authorization: "Bearer " + (guarded.tokens[.act] ?? "")],
                body: ByteBuffer(string: "action=pause"))
            #expect(response.status == .seeOther)
        }
    }

    @Test("over TLS the cookie is for this host and TLS alone")
    func secureCookie() throws {
        let guarding = try Guarded(access: .users(trustsProxy: true)).bench.dashboard.guarding
        let forwarded = try #require(HTTPField.Name("X-Forwarded-Proto"))
        var request = HTTPRequest(method: .get, scheme: "http", authority: "h", path: "/")
        #expect(!guarding.cookie("x", for: request, "").contains("Secure"))
        request.headerFields[forwarded] = "https"
        let cookie = guarding.cookie("x", for: request, "")
        #expect(cookie.hasPrefix("__Host-hoist-") && cookie.contains("=x; Path=/;") && cookie.contains("; Secure"))
        let untrusting = try Guarded().bench.dashboard.guarding
        #expect(guarding.cookie("x", for: request, "/a") != guarding.cookie("x", for: request, "/b"))
        #expect(!untrusting.cookie("x", for: request, "").contains("Secure"))
    }

    @Test("users and tokens are managed from the command line, and an open address needs one")
    func commandLine() async throws {
        let folder = try TemporaryFolder()
        let (store, file) = (folder.path("history.db"), folder.path("password"))
        try "correct horse\n".write(toFile: file, atomically: true, encoding: .utf8)
        func hoist(_ arguments: String...) async throws -> (status: Int32, text: String) {
            try await BuiltProgram.output(
                of: "/bin/sh",
                ["-c", "HOIST_BACKEND=memory: exec \"$0\" \"$@\" 2>&1", BuiltProgram.url("hoist").path, "dashboard"]
                    + arguments)
        }
        // The backend of the environment, without an option.
        let alone = try await hoist("--host", "0.0.0.0", "--port", "0", "--store", store)
        #expect(alone.status == 64 && alone.text.contains("hoist dashboard user add"), "\(alone)")
        let refused = try await hoist("--host", "0.0.0.0", "--port", "0", "--store", store, "--backend", "memory:")
        #expect(refused.status == 64 && refused.text.contains("hoist dashboard user add"), "\(refused)")
        let added = try await hoist("user", "add", "ada", "--role", "admin", "--password-file", file, "--store", store)
        #expect(
            added.status == 0 && added.text.contains("ada may log in as admin") && added.text.contains("next start"),
            "\(added)")
        #expect(try await hoist("user", "list", "--store", store).text == "ada  admin\n")
        let token = try await hoist("token", "add", "prometheus", "--right", "metrics", "--store", store)
        #expect(token.text.hasPrefix("hoist_") && token.text.count > 40, "\(token)")
        #expect(try await hoist("token", "list", "--store", store).text == "prometheus  metrics\n")
        #expect(try await hoist("user", "remove", "ada", "--store", store).status == 0)
        #expect(try await hoist("user", "remove", "ada", "--store", store).status == 1)
        #expect(try await hoist("token", "remove", "prometheus", "--store", store).status == 0)
        try "short\n".write(toFile: file, atomically: true, encoding: .utf8)
        let short = try await hoist("user", "add", "ada", "--role", "admin", "--password-file", file, "--store", store)
        #expect(short.status != 0 && short.text.contains("8 to 1,000"), "\(short)")
    }
}
