/// Keeps a backend in order: gives the jobs of dead workers to others, ends jobs that were not started in time, removes
/// records that have passed their time. Workers do the same beside their work.
public protocol Upkeep: Sendable {
    /// Does what is due, a bounded amount of it.
    /// - Parameter interval: how often the caller does so. A backend tells by it whether a server stood still
    ///   meanwhile.
    /// - Throws: ``BackendError``; part of it may be done then, and the next call does the rest.
    func tick(every interval: Duration) async throws
}

extension Upkeep {
    /// Does what is due, as often as ``UpkeepService`` by default.
    /// - Throws: as ``tick(every:)``.
    public func tick() async throws { try await tick(every: .seconds(2)) }
}
