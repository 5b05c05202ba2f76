/// Keeps a backend in order: gives the jobs of dead workers to others, ends jobs that were not started in time, removes
/// records that have passed their time. Workers do the same beside their work.
public protocol Upkeep: Sendable {
    /// Does what is due, a bounded amount of it.
    /// - Throws: ``BackendError``; part of it may be done then, and the next call does the rest.
    func tick() async throws
}
