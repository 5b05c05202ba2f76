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
    private let throttle = LoginThrottle()
    /// Digests of names and passwords that were right a moment ago: a script sends them with every request.
    private let remembered = Mutex<[[UInt8]: (identity: Identity, until: ContinuousClock.Instant)]>([:])
    /// Makes the digests worth nothing outside of this process.
    private let pepper = SymmetricKey(size: .bits256)
    /// Hashing takes memory: so many at a time.
    private let hashing = HashingThread()

    init(access: DashboardAccess, isReadOnly: Bool, store: HistoryStore) {
        self.access = access
        self.isReadOnly = isReadOnly
        self.store = store
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
    ///   - right: what the request needs; nil for what everybody may have.
    ///   - changes: whether the request is to change something.
    ///   - now: the time, for sessions.
    /// - Returns: who asks.
    func admit(
        _ request: HTTPRequest, peer: String?, right: DashboardRight?, changes: Bool, at now: Date
    ) async throws -> Identity {
        if access.kind == .machine { try checkMachine(request, peer) }
        let identity = try await identity(request, peer, at: now)
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

    private func identity(_ request: HTTPRequest, _ peer: String?, at now: Date) async throws -> Identity {
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
                return try await logIn(
                    String(decoding: data[..<colon], as: UTF8.self),
                    String(decoding: data[(colon + 1)...], as: UTF8.self), peer)
            }
            throw Refusal(status: .unauthorized, reason: "The header Authorization is neither Basic nor Bearer.")
        }
        if let session = session(of: request), let identity = try await store.identity(ofSession: session, at: now) {
            return identity
        }
        return .nobody
    }

    /// - Returns: who has this name and password.
    /// - Throws: ``Refusal`` 401 for a wrong one, 429 after too many.
    func logIn(_ name: String, _ password: String, _ peer: String?) async throws -> Identity {
        let digest = Array(
            HMAC<SHA256>.authenticationCode(for: Array("\(name)\u{0}\(password)".utf8), using: pepper))
        let known = remembered.withLock { remembered in
            remembered[digest].flatMap { $0.until > .now ? $0.identity : nil }
        }
        // A role that was taken away, or a password that was changed, holds at most for a minute more.
        if let known { return known }
        let keys = ["name " + name.cut(to: 200), "peer " + (peer ?? "")]
        if let wait = throttle.wait(keys) {
            let seconds = Int(wait.components.seconds) + 1
            throw Refusal(
                status: .tooManyRequests, reason: "Too many wrong passwords. Try again in \(seconds) seconds.",
                retryAfter: seconds)
        }
        let user = password.utf8.count <= 4000 ? try await store.user(name) : nil
        let isRight = await hashing.run { (user?.hash ?? .nobody).fits(password) }
        guard let user, isRight else {
            throttle.failed(keys)
            throw Refusal(status: .unauthorized, reason: "The name or the password is wrong.")
        }
        throttle.succeeded(keys)
        let identity = Identity(name: name, rights: user.role.rights)
        remembered.withLock { remembered in
            if remembered.count > 1000 { remembered = [:] }
            remembered[digest] = (identity, .now + .seconds(60))
        }
        return identity
    }

    // MARK: - Cookies

    /// Over TLS the browser keeps the cookie for this host and TLS alone.
    private func isSecure(_ request: HTTPRequest) -> Bool {
        access.trustsProxy && request.headerFields[Self.forwardedProtocol]?.lowercased() == "https"
    }

    private func cookieName(_ request: HTTPRequest) -> String { isSecure(request) ? "__Host-hoist" : "hoist-session" }

    private func session(of request: HTTPRequest) -> String? {
        let name = cookieName(request) + "="
        for header in request.headerFields[values: .cookie].prefix(10) {
            for pair in header.split(separator: ";").prefix(100) {
                let text = pair.drop { $0 == " " }
                if text.hasPrefix(name), text.utf8.count <= 200 { return String(text.dropFirst(name.count)) }
            }
        }
        return nil
    }

    /// - Parameter session: nil to have the browser forget it.
    func cookie(_ session: String?, for request: HTTPRequest) -> String {
        let age = session == nil ? 0 : 14 * 86_400
        return "\(cookieName(request))=\(session ?? ""); Path=/; Max-Age=\(age); HttpOnly; SameSite=Lax"
            + (isSecure(request) ? "; Secure" : "")
    }

    private static let fetchSite = HTTPField.Name("Sec-Fetch-Site")!
    private static let fetchMode = HTTPField.Name("Sec-Fetch-Mode")!
    private static let forwardedProtocol = HTTPField.Name("X-Forwarded-Proto")!

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
        HTTPField.Name("Referrer-Policy")!: "no-referrer",
        HTTPField.Name("X-Frame-Options")!: "DENY",
        HTTPField.Name("Cross-Origin-Opener-Policy")!: "same-origin",
        HTTPField.Name("Cross-Origin-Resource-Policy")!: "same-origin",
        .cacheControl: "no-store",
    ]
}

/// A thread that hashes passwords, one after the other: it takes long, and memory.
private final class HashingThread: Sendable {
    private let queue = DispatchQueue(label: "hoist-passwords")

    func run<T: Sendable>(_ body: @escaping @Sendable () -> T) async -> T {
        await withCheckedContinuation { continuation in queue.async { continuation.resume(returning: body()) } }
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
