#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif
public import Hoist

/// A worker as it tells of itself.
public struct MonitoredWorker: Sendable, Hashable {
    /// `name@host`.
    public let name: String
    public let firstHeard: Date
    /// When something was heard of it last, by this program's clock.
    public internal(set) var heardAt: Date
    /// When it beat last, by this program's clock; nil while only replies were heard.
    public internal(set) var beatAt: Date?
    /// When this incarnation started, by its own clock.
    public internal(set) var startedAt: Date?
    /// It has said that it leaves.
    public internal(set) var hasLeft = false
    /// Seconds between heartbeats.
    public internal(set) var frequency = 2.0
    public internal(set) var processID: Int?
    public internal(set) var active = 0
    public internal(set) var processed = 0
    public internal(set) var loadAverage: [Double] = []
    /// `hoist`, `py-celery`.
    public internal(set) var software: String?
    public internal(set) var version: String?
    public internal(set) var system: String?
    public internal(set) var slots: Int?
    public internal(set) var queues: [String]?
    public internal(set) var jobNames: [String]?
    /// What it answered last to `stats` and `conf`; null when that was too much.
    public internal(set) var statistics: WireValue?
    public internal(set) var settings: WireValue?
    /// The lanes of a Hoist worker.
    public internal(set) var lanes: [String: LaneUse] = [:]
    /// Bytes that a Hoist worker holds.
    public internal(set) var memory: Int?
    /// Events that a Hoist worker has left out.
    public internal(set) var eventsLeftOut = 0
    /// How the jobs of a Hoist worker have ended since it started, by name and outcome: exact, whatever was left out.
    public internal(set) var totals: [String: [String: Int]] = [:]
    /// By how many seconds its clock is ahead of this program's, about.
    public internal(set) var clockSkew = 0.0
    /// How often another process went on under this name.
    public internal(set) var restarts = 0

    /// A lane of a Hoist worker.
    public struct LaneUse: Sendable, Hashable {
        public var slots: Int
        public var used: Int
    }

    init(name: String, firstHeard: Date) {
        self.name = name
        self.firstHeard = firstHeard
        heardAt = firstHeard
    }

    /// Whether it beat within twice the time that it promises. One of which only replies were heard counts for 30
    /// seconds.
    public func isAlive(at now: Date) -> Bool {
        guard !hasLeft else { return false }
        guard let beatAt else { return now.timeIntervalSince(heardAt) < 30 }
        return now.timeIntervalSince(beatAt) <= 2 * frequency
    }

    /// Whether Python runs there.
    public var isPython: Bool? { software.map { $0.hasPrefix("py-") } }

    mutating func note(_ facts: EventFacts, _ now: Date) {
        heardAt = max(heardAt, now)
        clockSkew = facts.at.timeIntervalSince(now)
    }

    mutating func beginAgain() {
        restarts += 1
        (active, processed, totals, lanes) = (0, 0, [:], [:])
        (statistics, settings, queues, jobNames, slots, startedAt) = (nil, nil, nil, nil, nil, nil)
        eventsLeftOut = 0
    }

    /// What a worker says of slots: no machine has a million.
    static func slots(_ number: Int64) -> Int { Int(number.clamped(to: 0...1_000_000)) }

    /// Takes what Hoist adds to a heartbeat.
    mutating func take(_ hoist: WireValue) {
        if case .object(let lanes)? = hoist["lanes"] {
            self.lanes = [:]
            for (name, lane) in lanes where self.lanes.count < 8 {
                self.lanes[name] = LaneUse(
                    slots: lane["slots"]?.integerValue.map(Self.slots) ?? 0,
                    used: lane["used"]?.integerValue.map(Self.slots) ?? 0)
            }
            slots = self.lanes.values.reduce(0) { $0 &+ $1.slots }
        }
        if let names = hoist["queues"]?.arrayValue {
            queues = names.prefix(1000).compactMap(\.stringValue).filter { $0.utf8.count <= 512 }
        }
        memory = hoist["memory"]?.integerValue.map(Int.init(clamping:)) ?? memory
        eventsLeftOut = hoist["events_dropped"]?.integerValue.map(Int.init(clamping:)) ?? eventsLeftOut
        guard case .object(let totals)? = hoist["totals"] else { return }
        for (name, outcomes) in totals where name.utf8.count <= 512 {
            guard case .object(let members) = outcomes, self.totals[name] != nil || self.totals.count < 1000 else {
                continue
            }
            for (outcome, count) in members where self.totals[name]?.count ?? 0 < 16 && outcome.utf8.count <= 64 {
                self.totals[name, default: [:]][outcome] =
                    count.integerValue.map { Int($0.clamped(to: 0...1_000_000_000_000_000)) } ?? 0
            }
        }
    }
}

/// How the attempts of one kind of job have ended, as far as events told.
public struct MonitoredCount: Sendable, Hashable {
    public var succeeded = 0
    public var failed = 0
    public var retried = 0
    public var revoked = 0
    public var rejected = 0
    /// Seconds that successes have run, together.
    public var runTime = 0.0

    public init() {}

    mutating func add(_ state: MonitoredState, _ seconds: Double?) {
        switch state {
        case .succeeded:
            succeeded += 1
            if let seconds, seconds.isFinite, seconds >= 0 { runTime += seconds }
        case .failed: failed += 1
        case .retrying: retried += 1
        case .revoked: revoked += 1
        case .rejected: rejected += 1
        case .unknown, .sent, .received, .waiting, .started: break
        }
    }
}

/// What a monitor has missed.
public struct MonitoredGaps: Sendable, Hashable {
    /// Times in which nothing was heard; the last 100.
    public private(set) var times: [ClosedRange<Date>] = []
    /// All of them.
    public private(set) var count = 0
    /// Jobs that were forgotten to make room.
    public internal(set) var jobsForgotten = 0
    /// Workers for which there was no room.
    public internal(set) var workersLeftOut = 0

    mutating func note(from begin: Date, to end: Date) {
        count += 1
        times.append(min(begin, end)...max(begin, end))
        if times.count > 100 { times.removeFirst() }
    }
}
