/// What a person may do on a dashboard.
public enum DashboardRole: String, Sendable, Hashable, CaseIterable {
    /// Sees everything, and does nothing.
    case viewer
    /// Sees everything, and acts on jobs, queues and workers.
    case `operator`
    /// As ``operator``; what will change the dashboard itself is for admins alone.
    case admin

    var rights: Set<DashboardRight> {
        switch self {
        case .viewer: [.read, .metrics]
        case .operator: [.read, .metrics, .act]
        case .admin: [.read, .metrics, .act]
        }
    }
}

/// What a token may be used for.
public enum DashboardRight: String, Sendable, Hashable, CaseIterable {
    /// Pages, the API and live streams.
    case read
    /// What changes jobs, queues and workers.
    case act
    /// `/metrics`.
    case metrics
}

/// Who asks.
struct Identity: Sendable, Hashable {
    var name: String
    var rights: Set<DashboardRight>
    /// A program with a token: no browser sends it by itself.
    var isToken = false
    /// It has sent a name and a password with the request itself, as scripts do.
    var isBasic = false
    /// The session that a browser has; nil for others.
    var session: String?

    /// Everybody on this machine, where nobody logs in.
    static let thisMachine = Identity(name: "this machine", rights: Set(DashboardRight.allCases))
    /// Somebody who has not logged in.
    static let nobody = Identity(name: "nobody", rights: [])
}
