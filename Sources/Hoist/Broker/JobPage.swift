/// A part of a listing: ``JobDirectory/page(_:after:)``.
public struct JobPage: Sendable {
    public var jobs: [JobRecord]
    /// Where the next page begins; nil after the last one. A page may be short, or empty, and not be the last.
    public var next: JobCursor?

    public init(jobs: [JobRecord], next: JobCursor?) {
        self.jobs = jobs
        self.next = next
    }
}

/// A place in a listing. Its text means something only to the backend that made it, and may be kept for as long as the
/// backend lives.
public struct JobCursor: Sendable, Hashable, Codable, CustomStringConvertible {
    public var text: String
    public var description: String { text }

    public init(_ text: String) { self.text = text }
}

/// How many jobs of a queue, a name and a state there are: ``JobDirectory/counts()``.
public struct JobCount: Sendable, Hashable {
    /// The name where a backend cannot look into its queues.
    package static let untold = "(not told)"

    public var queue: String
    /// The wire name.
    public var name: String
    public var state: JobState
    public var count: Int
    /// Whether the count was extrapolated from a sample, because the backend does not keep the names of jobs apart.
    public var isEstimate: Bool

    public init(queue: String, name: String, state: JobState, count: Int, isEstimate: Bool = false) {
        self.queue = queue
        self.name = name
        self.state = state
        self.count = count
        self.isEstimate = isEstimate
    }
}

extension BackendError {
    /// A cursor that no page of this backend has given.
    package init(strange cursor: JobCursor) {
        self.init(.misuse, "the cursor \(cursor.text.cut(to: 60)) is not of this backend; begin with the first page")
    }
}
