import Crypto
import Foundation
import HTTPTypes
import Hoist
public import Hummingbird
public import NIOCore
import Synchronization

/// Decides who asks, and which requests are answered. Adds to every answer what browsers are to obey.
final class RequestGuard: Sendable {
    let access: DashboardAccess
    let isReadOnly: Bool
    private let store: HistoryStore
    /// What it costs to hash a password for a name that there is not.
    private let cost: PasswordHash.Cost
    private let throttle = LoginThrottle()
    /// Names and passwords that were right a moment ago, and the hash that they fitted: a script sends them with every
    /// request.
    private let remembered = Mutex<[[UInt8]: (hash: PasswordHash, until: ContinuousClock.Instant)]>([:])
    /// Makes the digests worth nothing outside of this process.
    private let pepper = SymmetricKey(size: .bits256)
    private let hashing = HashingThread()
    /// Names and passwords that are being looked at.
    private let underWay = Mutex<Set<[UInt8]>>([])
    private let bell = Doorbell()

    init(access: DashboardAccess, isReadOnly: Bool, store: HistoryStore, cost: PasswordHash.Cost) {
        self.access = access
        self.isReadOnly = isReadOnly
        self.store = store
        self.cost = cost
    }

    /// Why a request is refused.
    struct Refusal: Error, Sendable, Hashable {
        var status: HTTPResponse.Status
        var reason: String
        var retryAfter: Int?
    }

    /// - Parameters:
    ///   - request: its head is looked at, nothing else.
    ///   - peer: the address at the other end; nil where the request context does not know it.
    ///   - base: where the dashboard is mounted: empty, or `/hoist`.
    ///   - right: what the request needs; nil for what everybody may have.
    ///   - changes: whether the request is to change something.
    ///   - now: the time, for sessions.
    /// - Returns: who asks.
    func admit(
        _ request: HTTPRequest, peer: String?, mountedAt base: String = "", right: DashboardRight?, changes: Bool,
        at now: Date
    ) async throws -> Identity {
        if access.kind == .machine { try checkMachine(request, peer) }
        // What everybody may have is not refused for credentials that are meant for somebody else.
        let identity =
            right == nil ? .nobody : try await identity(request, address(of: request, peer: peer), base, at: now)
        try checkSite(request, changes: changes, identity)
        guard let right else { return identity }
        guard identity.rights.contains(right) else {
            if identity == .nobody {
                throw Refusal(status: .unauthorized, reason: "Log in first, or send a token: Authorization: Bearer …")
            }
            throw Refusal(
                status: .forbidden, reason: "\(identity.name) may not do this: it needs the right to \(right.rawValue)."
            )
        }
        if changes, right != .read, isReadOnly {
            throw Refusal(status: .forbidden, reason: "This dashboard is read-only.")
        }
        return identity
    }

    private func checkMachine(_ request: HTTPRequest, _ peer: String?) throws(Refusal) {
        guard let peer else {
            throw Refusal(
                status: .forbidden,
                reason: "The address of the client is not known here: use DashboardRequestContext for the router.")
        }
        guard Self.isLoopback(peer) else {
            throw Refusal(
                status: .forbidden,
                reason: "This dashboard answers requests from its own machine alone. Add users to let others log in.")
        }
        // A proxy connects from this machine, also with requests that come from elsewhere.
        guard Self.forwarding.allSatisfy({ request.headerFields[$0] == nil }) else {
            throw Refusal(
                status: .forbidden,
                reason:
                    "The request came through a proxy. Behind one the dashboard needs users: hoist dashboard user add")
        }
        let host = Self.host(of: request.authority ?? "")
        guard ["localhost", "127.0.0.1", "[::1]"].contains(host) || access.hosts.contains(host) else {
            throw Refusal(
                status: .forbidden, reason: "This dashboard does not answer under the name that the request gives.")
        }
    }

    private func checkSite(_ request: HTTPRequest, changes: Bool, _ identity: Identity) throws(Refusal) {
        // Another site may lead here by a link. It may not make a browser ask in the background.
        let isNavigation = request.headerFields[Self.fetchMode].map { $0 == "navigate" } ?? true
        if request.headerFields[Self.fetchSite] == "cross-site", !isNavigation {
            throw Refusal(status: .forbidden, reason: "The request comes from another site.")
        }
        // No browser sends a token by itself.
        guard changes, !identity.isToken else { return }
        // Browsers say where a request comes from; what is not a browser says nothing, and is refused as well.
        if let site = request.headerFields[Self.fetchSite] {
            guard site == "same-origin" else {
                throw Refusal(status: .forbidden, reason: "The request comes from another site.")
            }
        } else {
            // A browser that repeats a name and a password by itself says where it comes from.
            if identity.isBasic, request.headerFields[.origin] == nil { return }
            guard let origin = request.headerFields[.origin], let authority = request.authority,
                origin == "http://" + authority || origin == "https://" + authority
            else {
                throw Refusal(
                    status: .forbidden,
                    reason: "The request does not say that it comes from this page (Sec-Fetch-Site or Origin).")
            }
        }
    }

    // MARK: - Who asks

    private func identity(
        _ request: HTTPRequest, _ peer: String?, _ base: String, at now: Date
    ) async throws -> Identity {
        guard access.kind == .users else { return .thisMachine }
        if let authorization = request.headerFields[.authorization] {
            guard authorization.utf8.count <= 4096 else {
                throw Refusal(status: .unauthorized, reason: "The header Authorization is too long.")
            }
            if let token = Self.rest(of: authorization, after: "bearer ") {
                if let identity = try await store.identity(ofToken: token) { return identity }
                throw Refusal(status: .unauthorized, reason: "This token is not known here.")
            }
            if let encoded = Self.rest(of: authorization, after: "basic "),
                let data = Data(base64Encoded: encoded),
                let colon = data.firstIndex(of: UInt8(ascii: ":"))
            {
                var identity = try await logIn(
                    String(decoding: data[..<colon], as: UTF8.self),
                    String(decoding: data[(colon + 1)...], as: UTF8.self), peer)
                identity.isBasic = true
                return identity
            }
            throw Refusal(status: .unauthorized, reason: "The header Authorization is neither Basic nor Bearer.")
        }
        for session in sessions(of: request, base) {
            if let identity = try await store.identity(ofSession: session, at: now) { return identity }
        }
        return .nobody
    }

    /// - Returns: who has this name and password.
    /// - Throws: ``Refusal`` 401 for a wrong one, 429 after too many.
    func logIn(_ name: String, _ password: String, _ peer: String?) async throws -> Identity {
        try await verified(name, password, peer).identity
    }

    /// - Returns: also the hash that the password fits.
    func verified(
        _ name: String, _ password: String, _ peer: String?
    ) async throws -> (identity: Identity, hash: PasswordHash) {
        // SQLite would end the name at a zero.
        let name = name.utf8.contains(0) || name.count > 100 ? "" : name
        let digest = Array(HMAC<SHA256>.authenticationCode(for: Array("\(name)\u{0}\(password)".utf8), using: pepper))
        let user = password.utf8.count <= 4000 && !name.isEmpty ? try await store.user(name) : nil
        let known = remembered.withLock { remembered in
            remembered[digest].flatMap { $0.until > .now ? $0.hash : nil }
        }
        // Role and password are those of this moment; only the hashing is spared.
        if let user, known == user.hash {
            return (Identity(name: name, rights: user.role.rights), user.hash)
        }
        let attempt = LoginThrottle.Attempt(name: name, address: peer ?? "")
        guard let isRight = try await isRight(password, user?.hash ?? .nobody(cost), digest, attempt) else {
            throw Self.tooMany(2)
        }
        guard let user, isRight else {
            throw Refusal(status: .unauthorized, reason: "The name or the password is wrong.")
        }
        return (Identity(name: name, rights: user.role.rights), user.hash)
    }

    /// - Returns: nil when too many passwords are being looked at.
    /// - Throws: ``Refusal`` 429 for who has guessed too often.
    private func isRight(
        _ password: String, _ hash: PasswordHash, _ digest: [UInt8], _ attempt: LoginThrottle.Attempt
    ) async throws -> Bool? {
        // A program that sends the same name and password several times at once makes one try.
        let key = digest + hash.hash
        if !underWay.withLock({ $0.insert(key).inserted }) {
            let deadline = ContinuousClock.now + .seconds(10)
            while ContinuousClock.now < deadline {
                let mark = bell.mark
                guard underWay.withLock({ $0.contains(key) }) else {
                    return remembered.withLock { $0[digest]?.hash == hash }
                }
                await bell.wait(after: mark, for: .seconds(1), clock: SystemJobClock())
            }
            return nil
        }
        defer {
            underWay.withLock { _ = $0.remove(key) }
            bell.ring()
        }
        // It counts as failed until it is known to be right: other guesses at the same time count as well.
        if let wait = throttle.begin(attempt) { throw Self.tooMany(Int(wait.components.seconds) + 1) }
        guard let isRight = await hashing.run({ hash.fits(password) }) else {
            throttle.takeBack(attempt)
            return nil
        }
        if isRight {
            throttle.succeeded(attempt)
            remembered.withLock { remembered in
                if remembered.count > 1000 { remembered = [:] }
                remembered[digest] = (hash, .now + .seconds(60))
            }
        }
        return isRight
    }

    private static func tooMany(_ seconds: Int) -> Refusal {
        Refusal(
            status: .tooManyRequests, reason: "Too many wrong passwords. Try again in \(seconds) seconds.",
            retryAfter: seconds)
    }

    /// Who is at the other end: behind a proxy that is trusted, the address that it names.
    func address(of request: HTTPRequest, peer: String?) -> String? {
        guard access.trustsProxy, let last = request.headerFields[Self.forwardedFor]?.split(separator: ",").last else {
            return peer
        }
        return String(last).trimmingCharacters(in: .whitespaces).cut(to: 64)
    }

    // MARK: - Cookies

    /// Over TLS the browser keeps the cookie for this host and TLS alone.
    private func isSecure(_ request: HTTPRequest) -> Bool {
        access.trustsProxy && request.headerFields[Self.forwardedProtocol]?.lowercased() == "https"
    }

    /// Cookies know no ports and no paths of servers: two dashboards of a host have two names.
    private func cookieName(_ request: HTTPRequest, _ base: String) -> String {
        let port = request.authority?.split(separator: ":").last.map(String.init) ?? ""
        let place = RandomText.digest(base + " " + port).prefix(4).map { String($0, radix: 16) }.joined()
        return (isSecure(request) ? "__Host-hoist-" : "hoist-") + place
    }

    /// The sessions that a browser sends; an old one may lie before the good one.
    func sessions(of request: HTTPRequest, _ base: String) -> [String] {
        let name = cookieName(request, base) + "="
        var sessions: [String] = []
        for header in request.headerFields[values: .cookie].prefix(10) {
            for pair in header.split(separator: ";").prefix(100) {
                let text = pair.drop { $0 == " " }
                if text.hasPrefix(name), text.utf8.count <= 200 { sessions.append(String(text.dropFirst(name.count))) }
            }
        }
        return Array(sessions.prefix(5))
    }

    /// - Parameter session: nil to have the browser forget it.
    func cookie(_ session: String?, for request: HTTPRequest, _ base: String) -> String {
        // The server ends sessions that are not used.
        let age = session == nil ? 0 : 90 * 86_400
        return "\(cookieName(request, base))=\(session ?? ""); Path=/; Max-Age=\(age); HttpOnly; SameSite=Lax"
            + (isSecure(request) ? "; Secure" : "")
    }

    private static let fetchSite = HTTPField.Name("Sec-Fetch-Site")!
    static let fetchMode = HTTPField.Name("Sec-Fetch-Mode")!
    private static let forwardedProtocol = HTTPField.Name("X-Forwarded-Proto")!
    private static let forwardedFor = HTTPField.Name("X-Forwarded-For")!
    private static let forwarding = [
        "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded",
    ]
    .compactMap { HTTPField.Name($0) }

    private static func rest(of text: String, after scheme: String) -> String? {
        guard text.count > scheme.count, text.prefix(scheme.count).lowercased() == scheme else { return nil }
        return String(text.dropFirst(scheme.count)).trimmingCharacters(in: .whitespaces)
    }

    /// The name without the port, in lower case.
    static func host(of authority: String) -> String {
        let text = authority.lowercased()
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") { return String(text[...end]) }
        return String(text.prefix { $0 != ":" })
    }

    static func isLoopback(_ address: String) -> Bool {
        address == "::1" || address.hasPrefix("127.") || address.hasPrefix("::ffff:127.") || address == "unix"
    }

    /// What every answer carries.
    static let headers: HTTPFields = [
        HTTPField.Name("Content-Security-Policy")!:
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
            + "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        HTTPField.Name("X-Content-Type-Options")!: "nosniff",
        // With no-referrer a browser would say nothing of where a form comes from.
        HTTPField.Name("Referrer-Policy")!: "same-origin",
        HTTPField.Name("X-Frame-Options")!: "DENY",
        HTTPField.Name("Cross-Origin-Opener-Policy")!: "same-origin",
        HTTPField.Name("Cross-Origin-Resource-Policy")!: "same-origin",
        .cacheControl: "no-store",
    ]
}

/// A thread that hashes passwords, one after the other: it takes long, and memory.
private final class HashingThread: Sendable {
    private let queue = DispatchQueue(label: "hoist-passwords")
    private let waiting = Mutex(0)
    private static let mostWaiting = 16

    /// - Returns: nil when too many wait already.
    func run<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T? {
        let isAdmitted = waiting.withLock { waiting in
            guard waiting < Self.mostWaiting else { return false }
            waiting += 1
            return true
        }
        guard isAdmitted else { return nil }
        defer { waiting.withLock { $0 -= 1 } }
        return await withCheckedContinuation { continuation in
            queue.async { continuation.resume(returning: body()) }
        }
    }
}

/// A request context that knows the address of the client. The router that a dashboard is mounted in needs this one, or
/// another `RemoteAddressRequestContext`.
public struct DashboardRequestContext: RequestContext, RemoteAddressRequestContext {
    public var coreContext: CoreRequestContextStorage
    public let remoteAddress: SocketAddress?

    public init(source: Source) {
        coreContext = CoreRequestContextStorage(source: source)
        remoteAddress = source.channel.remoteAddress
    }
}
