/// What one processor has to do at least: less is done before another thread has woken.
private let smallestPart = 128

extension Collection {
    /// Whether there is enough to do for several processors.
    package var isWorthSeveralProcessors: Bool { count >= 2 * smallestPart }
}

extension Array where Element: Sendable {
    /// As `map`, on several processors at once: for those that are worth it.
    ///
    /// For work of microseconds for each element, that blocks on nothing. In a task that prefers an executor of one
    /// thread it all happens there.
    package func mapOnProcessors<T: Sendable>(_ transform: @escaping @Sendable (Element) throws -> T) async throws
        -> [T]
    {
        let parts = Swift.max(1, Swift.min(ProcessIdentity.processorCount, 8, count / smallestPart))
        let size = (count + parts - 1) / parts
        return try await withThrowingTaskGroup(of: (part: Int, results: [T]).self) { group in
            for part in 1..<parts {
                group.addTask { (part, try self[part * size..<Swift.min(count, (part + 1) * size)].map(transform)) }
            }
            var results = [[T]](repeating: [], count: parts)
            results[0] = try self[..<size].map(transform)
            for try await (part, more) in group { results[part] = more }
            var all: [T] = []
            all.reserveCapacity(count)
            for part in results { all += part }
            return all
        }
    }
}
