import Hoist

/// The names of keys. Queues and results are named as Celery names them; everything else is our own, under `hoist:`.
struct RedisKeys: Sendable {
    /// kombu's `global_keyprefix`, in front of every key and channel of the broker.
    let prefix: String
    /// The `global_keyprefix` of the result backend.
    let resultPrefix: String
    /// The steps that priorities are rounded down to, ascending, the first one 0.
    let prioritySteps: [Int]

    static let separator = "\u{06}\u{16}"

    /// Prefix of Hoist's own keys. Scripts get it as their only key, except on a separate server of results.
    var own: String { prefix + "hoist:" }
    /// Signals to hear of at once: `due` when a delayed job becomes due sooner than those known, `cancel`, `ready`,
    /// `limits`, `room`, `resume`.
    var workChannel: String { own + "work" }
    /// The ids of jobs that have just been claimed, a line each.
    var startedChannel: String { own + "started" }
    var queues: String { own + "queues" }

    func result(_ id: JobID) -> String { results + id }
    /// What is known of a job that waits or runs, or that ended without a result.
    func job(_ id: JobID) -> String { own + "job:" + id }
    func log(_ id: JobID) -> String { own + "log:" + id }
    /// The ids of all schedules.
    var schedules: String { own + "schedules" }
    func schedule(_ id: String) -> String { own + "schedule:" + id }
    func scheduleHistory(_ id: String) -> String { own + "schedule-history:" + id }
    /// The ids of all workflows, by their age.
    var workflows: String { own + "workflows" }
    func workflow(_ id: String) -> String { own + "workflow:" + id }
    /// A group whose members are counted, as Celery names it; its parts are behind it.
    func group(_ id: String) -> String { resultPrefix + "celery-taskset-meta-" + id }
    /// How a job has ended that completed a group, while it is not settled yet.
    func counted(_ id: JobID) -> String { resultPrefix + "hoist-counted-" + id }
    /// A value that programs agree on.
    func storedValue(_ key: String) -> String { own + "value:" + key }
    /// Prefix of the keys of results; the id follows.
    var results: String { resultPrefix + "celery-task-meta-" }

    /// Redis pattern that matches the keys of all results.
    var resultPattern: String { Self.quoted(results) + "*" }

    /// Redis pattern that matches the keys of kombu's bindings.
    var bindingPattern: String { Self.quoted(prefix) + "_kombu.binding.*" }

    /// The set in which kombu keeps what is bound to an exchange.
    func bindingSet(of exchange: String) -> String { prefix + "_kombu.binding." + exchange }

    /// What a member of such a set says; nil for what is no binding.
    static func binding(_ member: String) -> (routingKey: String, queue: String)? {
        let parts = member.split(separator: separator, omittingEmptySubsequences: false)
        return parts.count == 3 ? (String(parts[0]), String(parts[2])) : nil
    }

    /// The text as a Redis pattern that matches it alone.
    static func quoted(_ text: String) -> String {
        String(text.flatMap { "*?[]\\".contains($0) ? ["\\", $0] : [$0] as [Character] })
    }

    /// The list of a queue that messages of this priority wait in. The number is the one on the wire: 0 is the most
    /// urgent.
    func list(_ queue: String, wirePriority: Int) -> String {
        let clamped = wirePriority.clamped(to: 0...9)
        return list(queue, step: prioritySteps.last { $0 <= clamped } ?? 0)
    }

    private func list(_ queue: String, step: Int) -> String {
        step == 0 ? prefix + queue : prefix + queue + Self.separator + String(step)
    }

    /// The lists of a queue, the most urgent first.
    func lists(_ queue: String) -> [String] { prioritySteps.map { list(queue, step: $0) } }

    /// The lists of a line, where jobs wait that a limit holds up; the same as `line_key` in limits.lua.
    func lists(_ queue: String, line: String) -> [String] { lists(queue).map { own + "line:" + $0 + "\n" + line } }

    /// The list from which the jobs of a line's list came; any other list is its own origin.
    func origin(ofList list: String) -> String {
        guard list.hasPrefix(own + "line:") else { return list }
        return String(list.dropFirst(own.count + 5).prefix { $0 != "\n" })
    }

    /// The queue of a list.
    func queue(ofList list: String) -> String {
        let list = origin(ofList: list)
        let name = list.dropFirst(prefix.count)
        return String(name.firstRange(of: Self.separator).map { name[..<$0.lowerBound] } ?? name)
    }

    /// The sets that hold the bindings of an exchange: all of them, and those that do not expire.
    func bindings(of exchange: String) -> [String] {
        [bindingSet(of: exchange), prefix + "_kombu.binding_permanent." + exchange]
    }

    /// The set member in which kombu keeps a binding to topics: the pattern, the pattern as a regular expression, and
    /// the queue.
    func member(_ queue: String, pattern: String) -> String {
        let words = pattern.split(separator: ".", omittingEmptySubsequences: false).map { word in
            switch word {
            case "*": #"[^\.]+"#
            case "#": ".*?"
            default: String(word.flatMap { #"\^$|?*+()[]{}-&~# "#.contains($0) ? ["\\", $0] : [$0] })
            }
        }
        return pattern + Self.separator + "^" + words.joined(separator: #"\."#) + "$" + Self.separator + queue
    }

    /// Pattern and queue of a binding.
    func binding(ofMember member: String) -> (pattern: String, queue: String)? {
        let parts = member.split(separator: Self.separator, omittingEmptySubsequences: false)
        return parts.count == 3 ? (String(parts[0]), String(parts[2])) : nil
    }

    /// The members by which kombu finds the queue of a direct exchange of the same name.
    func binding(_ queue: String) -> (keys: [String], member: String) {
        (bindings(of: queue), queue + Self.separator + Self.separator + queue)
    }

    static func step(ofResultPrefix prefix: String) -> String {
        // As Celery does it: with an underscore, unless the prefix already ends in a separator.
        guard let last = prefix.last else { return "" }
        return ":_-.".contains(last) ? prefix : prefix + "_"
    }
}

/// Priorities on Redis. On the wire, 0 is the most urgent, and a message without a priority counts as 0; in Hoist, 9 is
/// the most urgent.
enum RedisPriority {
    static func wire(urgency: Int) -> Int { 9 - urgency.clamped(to: 0...9) }
    static func urgency(wire: Int?) -> Int { 9 - (wire ?? 0).clamped(to: 0...9) }
}
