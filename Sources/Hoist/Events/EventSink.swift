/// Is told what happens to jobs and workers: ``Worker/Configuration/sinks``, ``JobClient/Configuration/sinks``.
///
/// Metrics and log lines of a worker are sinks as well. Both methods may be called on any thread and at the same time.
/// They run between the steps of jobs and leases, so that they must be quick and must not block; a sink that sends
/// something somewhere keeps it, and sends from a task of its own.
public protocol EventSink: Sendable {
    /// What the sink wants to hear at this moment. It is read before each event. An event that no sink wants is not
    /// even made.
    var interests: EventInterests { get }

    /// Whether the sink does without an event of this job, asked before the event is made. By default never.
    ///
    /// For a sink that leaves out some jobs: what it declines costs no more than the question.
    func declines(_ interest: EventInterests, of job: JobID) -> Bool

    /// As ``declines(_:of:)``, for the end of a delivery. A sink that only counts ends may do so here, and decline.
    func declinesEnd(_ outcome: Outcome, of job: JobID, named name: String) -> Bool

    /// Takes an event of a job. By default nothing.
    func record(_ event: JobEvent)

    /// Takes an event of a worker. By default nothing.
    func record(_ event: WorkerEvent)
}

extension EventSink {
    public func declines(_ interest: EventInterests, of job: JobID) -> Bool { false }
    public func declinesEnd(_ outcome: Outcome, of job: JobID, named name: String) -> Bool { false }
    public func record(_ event: JobEvent) {}
    public func record(_ event: WorkerEvent) {}
}

/// Kinds of events.
public struct EventInterests: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// What clients do: ``JobEvent/Kind/sent(_:)`` and ``JobEvent/Kind/cancelAsked(_:)``
    public static let sent = EventInterests(rawValue: 1)
    /// ``JobEvent/Kind/received(_:)``
    public static let received = EventInterests(rawValue: 2)
    /// ``JobEvent/Kind/started``
    public static let started = EventInterests(rawValue: 4)
    /// ``JobEvent/Kind/progressed(_:)`` and ``JobEvent/Kind/wrote(_:)``
    public static let progress = EventInterests(rawValue: 8)
    /// ``JobEvent/Kind/retried(_:)``, ``JobEvent/Kind/putBack(_:)``, ``JobEvent/Kind/ended(_:)`` and
    /// ``JobEvent/Kind/givenUp(_:lostWorker:)`` and ``JobEvent/Kind/takenOver(lostWorker:)``
    public static let ends = EventInterests(rawValue: 16)
    /// Of the ends those of attempts and jobs that failed.
    public static let failures = EventInterests(rawValue: 64)
    /// Every ``WorkerEvent``.
    public static let workers = EventInterests(rawValue: 32)
    public static let all: EventInterests = [.sent, .received, .started, .progress, .ends, .failures, .workers]
}

/// The sinks of a worker or a client: every event has one place where it is told to all of them.
struct EventStream: Sendable {
    private let sinks: [any EventSink]

    init(_ sinks: [any EventSink]) { self.sinks = sinks }

    /// Whether any sink wants to hear of this now.
    func wants(_ interest: EventInterests) -> Bool { sinks.contains { !$0.interests.isDisjoint(with: interest) } }

    /// - Parameters:
    ///   - interest: what the event is; a sink hears it that wants any of these.
    ///   - job: the job that the event is about.
    ///   - event: called when a sink wants it.
    func tell(_ interest: EventInterests, of job: JobID, _ event: () -> JobEvent) {
        tell(interest, unless: { $0.declines(interest, of: job) }, event)
    }

    /// Tells the end of a delivery.
    /// - Parameters:
    ///   - outcome: how it ended.
    ///   - job: the job.
    ///   - name: the wire name of the job.
    ///   - event: called when a sink wants it.
    func tellEnd(_ outcome: Outcome, of job: JobID, named name: String, _ event: () -> JobEvent) {
        tell(
            outcome.isTrouble ? [.ends, .failures] : .ends,
            unless: { $0.declinesEnd(outcome, of: job, named: name) }, event)
    }

    private func tell(
        _ interest: EventInterests, unless declines: (any EventSink) -> Bool, _ event: () -> JobEvent
    ) {
        var made: JobEvent?
        for sink in sinks where !sink.interests.isDisjoint(with: interest) && !declines(sink) {
            let event = made ?? event()
            sink.record(event)
            made = event
        }
    }

    func tell(_ kind: WorkerEvent.Kind, _ worker: WorkerPresence, at clock: any JobClock) {
        for sink in sinks where sink.interests.contains(.workers) {
            sink.record(WorkerEvent(kind, worker, at: clock.now))
        }
    }
}
