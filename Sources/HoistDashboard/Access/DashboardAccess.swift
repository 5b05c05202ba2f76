/// Who may see a dashboard.
public struct DashboardAccess: Sendable, Hashable {
    enum Kind: Sendable, Hashable {
        case machine
        case users
    }

    let kind: Kind
    /// Names that a request may give as its `Host` besides `localhost`, `127.0.0.1` and `[::1]`.
    var hosts: Set<String> = []
    /// Whether `X-Forwarded-Proto` says that the browser speaks TLS.
    var trustsProxy = false

    /// Only requests from this machine, whose `Host` says so too: no web site reaches the dashboard by having its own
    /// name lead to 127.0.0.1. Nobody logs in.
    public static let loopbackOnly = DashboardAccess(kind: .machine)

    /// As ``loopbackOnly``, for a machine that its own programs reach under further names.
    /// - Parameter hosts: names without a port.
    public static func loopbackOnly(hosts: Set<String>) -> DashboardAccess {
        DashboardAccess(kind: .machine, hosts: Set(hosts.map { $0.lowercased() }))
    }

    /// Users who log in with a password, and programs with a token, from anywhere: see ``DashboardUsers``.
    ///
    /// Passwords travel as they are: what is reached over a network wants TLS before it.
    /// - Parameter trustsProxy: whether a proxy before the dashboard sets `X-Forwarded-Proto` and lets no client set
    ///   it. Over TLS, cookies are then marked as secure. False by default.
    public static func users(trustsProxy: Bool = false) -> DashboardAccess {
        DashboardAccess(kind: .users, trustsProxy: trustsProxy)
    }
}
