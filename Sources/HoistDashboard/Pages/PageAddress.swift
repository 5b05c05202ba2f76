/// A page of the dashboard, as its address names it.
enum PageAddress: Sendable, Hashable {
    case overview
    case jobs(search: String, before: Int64?)
    case job(String)
    case queues
    case queue(String)
    case workers
    case worker(String)
    case scheduled
    case failures
    case names
    case audit

    /// The paths of all pages; `:id` stands for any text.
    static let paths = [
        "", "jobs", "jobs/:id", "queues", "queues/:id", "workers", "workers/:id", "scheduled", "dead-letters", "names",
        "audit",
    ]

    /// - Parameters:
    ///   - path: the components behind the place where the dashboard is mounted, decoded.
    ///   - query: the parameters, decoded.
    init?(_ path: [String], _ query: [String: String]) {
        switch (path.first, path.count) {
        case (nil, 0): self = .overview
        case ("jobs", 1): self = .jobs(search: query["q"] ?? "", before: query["before"].flatMap { Int64($0) })
        case ("jobs", 2): self = .job(path[1])
        case ("queues", 1): self = .queues
        case ("queues", 2): self = .queue(path[1])
        case ("workers", 1): self = .workers
        case ("workers", 2): self = .worker(path[1])
        case ("scheduled", 1): self = .scheduled
        case ("dead-letters", 1): self = .failures
        case ("names", 1): self = .names
        case ("audit", 1): self = .audit
        default: return nil
        }
    }
}
