/// The smallest number of elements for one processor: fewer elements are done before another thread has woken.
private let smallestPart = 128

extension Collection {
    /// Whether the collection is large enough for several processors.
    package var isWorthSeveralProcessors: Bool { count >= 2 * smallestPart }
}

extension Array where Element: Sendable {
    /// Like `map`, on several processors at once when the array is large enough.
    ///
    /// Meant for work of microseconds for each element that does not block. In a task that prefers an executor of one
    /// thread, all work runs on that thread.
    /// - Throws: only what `transform` throws: the error of one element, even when several fail.
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
