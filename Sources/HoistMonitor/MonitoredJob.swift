#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif
public import Hoist

/// The state of a job as its events tell it.
public enum MonitoredState: String, Sendable, Hashable, Codable, CaseIterable {
    /// Only something else than its state was heard of.
    case unknown
    /// A client has enqueued it.
    case sent
    case received
    /// Back in its queue with no attempt spent: it was snoozed, its worker gave it back, or its worker died.
    case waiting
    case started
    case succeeded
    case failed
    case retrying
    case revoked
    case rejected

    public var hasEnded: Bool {
        switch self {
        case .succeeded, .failed, .revoked: true
        case .unknown, .sent, .received, .waiting, .started, .retrying, .rejected: false
        }
    }

    var isEndOfAttempt: Bool {
        switch self {
        case .succeeded, .failed, .retrying, .revoked, .rejected: true
        case .unknown, .sent, .received, .waiting, .started: false
        }
    }

    /// Of two events that cannot be ordered otherwise, that with the higher rank is the later one, much as in
    /// Celery's `celery.states`.
    var rank: Int {
        switch self {
        case .succeeded: 9
        case .failed: 8
        case .revoked: 7
        case .rejected: 6
        case .started: 5
        case .received: 4
        case .retrying, .waiting: 2
        case .sent: 1
        case .unknown: 0
        }
    }
}

/// A job as its events tell it.
public struct MonitoredJob: Sendable, Hashable {
    public let id: JobID
    /// Nil while nobody has told it.
    public var name: String?
    public var state: MonitoredState = .unknown
    /// The worker that had it last.
    public var worker: String?
    public var queue: String?
    public var lane: String?
    /// As readable text, perhaps cut.
    public var positionalText: String?
    public var keywordText: String?
    public var rootID: JobID?
    public var parentID: JobID?
    /// Attempts made before the present one.
    public var retries = 0
    public var due: Date?
    public var expires: Date?
    /// By the clocks of those who told it.
    public var sentAt: Date?
    public var receivedAt: Date?
    public var startedAt: Date?
    public var endedAt: Date?
    /// Seconds.
    public var runTime: Double?
    public var result: String?
    public var exception: String?
    public var traceback: String?
    public var progress: JobProgress?
    /// The last line that the handler has written.
    public var lastLine: String?
    /// Of a revoked job: whether it ran.
    public var isTerminated: Bool?
    /// Of a revoked job: whether it was not started in time.
    public var isExpired: Bool?

    /// An event that was heard of this job.
    struct Mark: Sendable, Hashable {
        var state: MonitoredState
        var attempt: Int
    }

    /// The events that were heard, so that one that comes twice is counted once.
    var marks: Set<Mark> = []
    /// Lamport's clock and the time of the event that gave the state.
    private var clock: Int64?
    private var at: Date?
    var revision: UInt64 = 0
    var size = 0

    init(id: JobID) { self.id = id }

    /// Whether an event is older than the state that is known.
    func isLate(_ newState: MonitoredState, _ report: TaskReport, _ limits: FleetPicture.Limits) -> Bool {
        guard state != .unknown else { return false }
        if newState == state { return true }
        // The client's clock is its own, and it tells only after the broker has the job.
        if newState == .sent { return true }
        // What the same node tells is in the order of its clock.
        if let clock, let other = report.facts.clock, worker == limits.cut(report.node, to: 512), other != clock {
            return other < clock
        }
        if newState == .received, report.retries ?? retries > retries { return false }
        if state.hasEnded || newState.hasEnded { return newState.rank < state.rank }
        // An attempt after a retry begins with a claim that names it.
        if state == .retrying { return true }
        return newState != .retrying && newState.rank < state.rank
    }

    /// Takes what an event says of the job itself, also when it comes late.
    mutating func describe(_ report: TaskReport, _ limits: FleetPicture.Limits) {
        name = report.name.map { limits.cut($0, to: 512) } ?? name
        positionalText = report.positionalText.map { limits.cut($0) } ?? positionalText
        keywordText = report.keywordText.map { limits.cut($0) } ?? keywordText
        rootID = report.rootID.map { limits.cut($0, to: 1024) } ?? rootID
        parentID = report.parentID.map { limits.cut($0, to: 1024) } ?? parentID
        queue = report.queue.map { limits.cut($0, to: 512) } ?? queue
        lane = report.lane.map { limits.cut($0, to: 64) } ?? lane
        due = report.due ?? due
        expires = report.expires ?? expires
        if let retries = report.retries { self.retries = max(self.retries, retries) }
        switch report.facts.type {
        case "task-sent": sentAt = report.facts.at
        case "task-received": receivedAt = receivedAt ?? report.facts.at
        case "task-started": startedAt = startedAt ?? report.facts.at
        default: break
        }
    }

    /// Takes the state of an event that is not late.
    mutating func take(_ report: TaskReport, _ newState: MonitoredState, _ limits: FleetPicture.Limits) {
        state = newState
        (clock, at) = (report.facts.clock, report.facts.at)
        switch newState {
        case .received:
            receivedAt = report.facts.at
            (startedAt, endedAt, progress) = (nil, nil, nil)
            // It has another life: what comes of it counts anew.
            marks = [Mark(state: .received, attempt: report.retries ?? retries)]
        case .started:
            startedAt = report.facts.at
            (endedAt, progress) = (nil, nil)
        case .succeeded, .failed, .retrying, .revoked, .rejected:
            endedAt = report.facts.at
            runTime = report.runTime ?? runTime
            result = report.result.map { limits.cut($0) }
            exception = report.exception.map { limits.cut($0) } ?? (newState == .succeeded ? nil : exception)
            traceback = report.traceback.map { limits.cut($0) } ?? (newState == .succeeded ? nil : traceback)
            (isTerminated, isExpired) = (report.isTerminated, report.isExpired)
            if marks.count > 64 { marks = [Mark(state: newState, attempt: report.retries ?? retries)] }
        case .sent, .waiting, .unknown: break
        }
    }

    /// Whether a report that the job went back to its queue is of the worker that has it.
    func isReturned(by report: TaskReport, _ limits: FleetPicture.Limits) -> Bool {
        guard state == .received || state == .started else { return false }
        if let lost = report.lostWorker { return worker == limits.cut(lost, to: 512) }
        guard worker == limits.cut(report.node, to: 512) else { return false }
        guard let clock, let other = report.facts.clock else { return true }
        return other >= clock
    }

    /// The job is back in its queue.
    mutating func returned(_ report: TaskReport) {
        state = .waiting
        due = report.due
        (clock, at) = (nil, report.facts.at)
        (worker, lane, startedAt, progress) = (nil, nil, nil, nil)
    }

    /// Bytes that it takes, about.
    var measured: Int {
        let texts = [
            id, name, worker, queue, lane, positionalText, keywordText, rootID, parentID, result, exception, traceback,
            progress?.message, lastLine,
        ]
        return 400 + texts.reduce(0) { $0 + ($1?.utf8.count ?? 0) } + marks.count * 24
    }
}
