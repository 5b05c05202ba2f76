/// Who may see a dashboard.
///
/// There is one kind so far: people on the machine itself. A request from elsewhere gets 403.
public struct DashboardAccess: Sendable, Hashable {
    /// Names that a request may give as its `Host` besides `localhost`, `127.0.0.1` and `[::1]`.
    var hosts: Set<String> = []

    /// Only requests from this machine, whose `Host` says so too: no web site reaches the dashboard by having its own
    /// name lead to 127.0.0.1.
    public static let loopbackOnly = DashboardAccess()

    /// As ``loopbackOnly``, for a machine that its own programs reach under further names.
    /// - Parameter hosts: names without a port.
    public static func loopbackOnly(hosts: Set<String>) -> DashboardAccess {
        DashboardAccess(hosts: Set(hosts.map { $0.lowercased() }))
    }
}
