import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The state of a job in the history. The numbers are stored: they never change their meaning.
enum HistoryState: Int, Sendable, Hashable, CaseIterable {
    case waiting = 0
    /// Due later.
    case scheduled = 1
    case running = 2
    case succeeded = 3
    case failed = 4
    case retrying = 5
    case cancelled = 6
    case expired = 7
    /// Its worker died, and neither the broker nor the result store knows what became of it.
    case lost = 8

    /// The word that pages, searches and the API use.
    var word: String { String(describing: self) }

    init?(word: some StringProtocol) {
        guard let state = Self.allCases.first(where: { $0.word == word }) else { return nil }
        self = state
    }

    /// The state of a job that events tell of.
    init(_ job: MonitoredJob, at now: Date) {
        switch job.state {
        case .unknown, .sent, .received, .waiting:
            self = job.due.map { $0 > now } ?? false ? .scheduled : .waiting
        case .started: self = .running
        case .succeeded: self = .succeeded
        case .failed: self = .failed
        case .retrying: self = .retrying
        // Celery's Reject takes a message from the queue without a run.
        case .revoked, .rejected: self = job.isExpired == true ? .expired : .cancelled
        }
    }

    var hasEnded: Bool {
        switch self {
        case .succeeded, .failed, .cancelled, .expired, .lost: true
        case .waiting, .scheduled, .running, .retrying: false
        }
    }
}
