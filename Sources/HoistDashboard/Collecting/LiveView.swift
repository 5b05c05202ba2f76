import Hoist
import HoistMonitor
import Synchronization

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What a dashboard knows of one backend at this moment.
struct LiveView: Sendable {
    var picture: FleetPicture
    var tallies = RecentTallies()
    var counters = FleetCounters()
    var queues: [QueueStatistics] = []
    /// When the queues were read last, and why they could not be since.
    var queuesReadAt: Date?
    var trouble: String?
    /// Since when events are heard; nil while they are not.
    var connectedSince: Date?
    var events = 0
    /// Events of the seconds before, to tell the rate.
    var eventRate = 0.0
    var pausedQueues: Set<String> = []
    /// What workers have answered, as they did, by name.
    var replies: [String: WorkerReplies] = [:]
}

/// What a worker has answered last.
struct WorkerReplies: Sendable {
    var at: Date
    /// By the name of the command.
    var values: [String: WireValue] = [:]
}
