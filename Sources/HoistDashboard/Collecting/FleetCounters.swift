import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What Prometheus is told of events, in the families that Flower has. Counted since the dashboard began.
struct FleetCounters: Sendable {
    /// So many series a family; events of others are counted under `other`.
    static let mostSeries = 5000
    /// Flower's, in seconds.
    static let buckets = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

    struct EventKey: Sendable, Hashable {
        var worker: String
        var type: String
        var name: String
    }

    struct JobKey: Sendable, Hashable {
        var worker: String
        var name: String
    }

    struct RunTimes: Sendable {
        /// Counts below each bucket, and of all.
        var counts = Array(repeating: 0, count: FleetCounters.buckets.count + 1)
        var sum = 0.0

        mutating func add(_ seconds: Double) {
            sum += seconds
            let place = FleetCounters.buckets.firstIndex { seconds <= $0 } ?? FleetCounters.buckets.count
            counts[place] += 1
        }
    }

    private(set) var events: [EventKey: Int] = [:]
    private(set) var runTimes: [JobKey: RunTimes] = [:]
    /// Seconds between the claim of the job that started last and its start.
    private(set) var prefetchTimes: [JobKey: Double] = [:]
    private(set) var gaps = 0
    /// All that one of the two above is kept of.
    private var jobs: Set<JobKey> = []

    mutating func missed() { gaps += 1 }

    /// - Parameters:
    ///   - event: an event of a job.
    ///   - after: the job after it.
    mutating func take(_ event: TaskReport, after: MonitoredJob) {
        let name = after.name ?? ""
        let worker = event.node.cut(to: 512)
        var key = EventKey(worker: worker, type: event.facts.type, name: name)
        if events[key] == nil, events.count >= Self.mostSeries {
            key = EventKey(worker: "other", type: key.type, name: "other")
        }
        events[key, default: 0] += 1
        var job = JobKey(worker: worker, name: name)
        if !jobs.contains(job) {
            if jobs.count >= Self.mostSeries { job = JobKey(worker: "other", name: "other") }
            jobs.insert(job)
        }
        if let run = event.runTime, run > 0 { runTimes[job, default: RunTimes()].add(run) }
        guard after.due == nil else { return }
        switch event.facts.type {
        case "task-started":
            if let received = after.receivedAt, let started = after.startedAt {
                prefetchTimes[job] = max(0, started.timeIntervalSince(received))
            }
        case "task-succeeded", "task-failed": prefetchTimes[job] = 0
        default: break
        }
    }

    enum Presence { case alive, dead, gone }

    /// A dead worker has nothing claimed; one that is gone for long is no longer told of.
    mutating func tidy(_ presence: (_ worker: String) -> Presence) {
        var known: [String: Presence] = [:]
        func look(_ worker: String) -> Presence {
            if worker == "other" { return .alive }
            if let found = known[worker] { return found }
            let found = presence(worker)
            known[worker] = found
            return found
        }
        jobs = jobs.filter { look($0.worker) != .gone }
        runTimes = runTimes.filter { look($0.key.worker) != .gone }
        prefetchTimes = prefetchTimes.filter { look($0.key.worker) == .alive }
        // Clients send events too, and are no workers: theirs stay, as long as there is room.
        if events.count >= Self.mostSeries { events = events.filter { look($0.key.worker) != .gone } }
    }

    /// Adds what another backend's fleet has done: Flower's families have no label for a backend.
    mutating func merge(_ other: FleetCounters) {
        events.merge(other.events, uniquingKeysWith: +)
        prefetchTimes.merge(other.prefetchTimes) { max($0, $1) }
        runTimes.merge(other.runTimes) { one, two in
            RunTimes(counts: zip(one.counts, two.counts).map(+), sum: one.sum + two.sum)
        }
    }
}
