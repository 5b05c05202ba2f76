import HTTPTypes
public import Hummingbird
public import NIOCore

/// Decides which requests are answered, and adds to every answer what browsers are to obey.
struct RequestGuard: Sendable {
    let access: DashboardAccess
    let isReadOnly: Bool

    /// Why a request is refused.
    struct Refusal: Error, Sendable, Hashable {
        var status: HTTPResponse.Status
        var reason: String
    }

    /// - Parameters:
    ///   - request: its head is looked at, nothing else.
    ///   - peer: the address at the other end; nil where the request context does not know it.
    ///   - changes: whether the request is to change something.
    func check(_ request: HTTPRequest, peer: String?, changes: Bool) throws(Refusal) {
        guard let peer else {
            throw Refusal(
                status: .forbidden,
                reason: "The address of the client is not known here: use DashboardRequestContext for the router.")
        }
        guard Self.isLoopback(peer) else {
            throw Refusal(status: .forbidden, reason: "This dashboard answers requests from its own machine alone.")
        }
        let host = Self.host(of: request.authority ?? "")
        guard ["localhost", "127.0.0.1", "[::1]"].contains(host) || access.hosts.contains(host) else {
            throw Refusal(
                status: .forbidden, reason: "This dashboard does not answer under the name that the request gives.")
        }
        // Another site may lead here by a link. It may not make a browser ask in the background.
        let isNavigation = request.headerFields[Self.fetchMode].map { $0 == "navigate" } ?? true
        if request.headerFields[Self.fetchSite] == "cross-site", !isNavigation {
            throw Refusal(status: .forbidden, reason: "The request comes from another site.")
        }
        guard changes else { return }
        guard !isReadOnly else {
            throw Refusal(status: .forbidden, reason: "This dashboard is read-only.")
        }
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

    private static let fetchSite = HTTPField.Name("Sec-Fetch-Site")!
    private static let fetchMode = HTTPField.Name("Sec-Fetch-Mode")!

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
