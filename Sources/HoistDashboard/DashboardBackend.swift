public import Hoist

/// A backend that a dashboard shows, and the name that it has there.
public struct DashboardBackend: Sendable {
    /// Unique among the backends of a dashboard; the history is kept under it.
    public var name: String
    public var backend: Backend

    /// - Parameters:
    ///   - name: unique among the backends of a dashboard, such as `prod`; the history is kept under it.
    ///   - backend: any backend. One without `Fanout` has no events: its pages show what its own records say.
    public init(_ name: String, _ backend: some BackendConvertible) {
        self.name = name
        self.backend = backend.backend
    }
}
