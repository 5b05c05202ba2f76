import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

// What templates are filled with: texts alone, which the templates escape.

/// A state with its icon.
struct StateView: Sendable {
    var word: String
    init(_ state: HistoryState) { word = state.word }
    init(_ word: String) { self.word = word }
}

/// A job in a list.
struct JobRowView: Sendable {
    var id: String
    var shortID: String
    var link: String
    var name: String
    var state: StateView
    var arguments: String
    var queue: String
    var queueLink: String?
    var worker: String
    var workerLink: String?
    var attempt: String
    var run: Quantity
    var moment: Moment?
    /// Why it failed, or when it is due.
    var note: String?

    init(_ job: HistoryJob, _ links: Links, _ now: Date) {
        id = job.id
        shortID = Format.shortID(job.id)
        link = links.job(job.id)
        name = job.name ?? "unknown"
        state = StateView(job.state)
        arguments = job.argumentsText.cut(to: 120)
        queue = job.queue ?? "–"
        queueLink = job.queue.map(links.queue)
        worker = job.worker ?? "–"
        workerLink = job.worker.map(links.worker)
        attempt = String(job.retries + 1)
        run =
            job.state == .running
            ? Format.span(job.startedAt.map { max(0, now.timeIntervalSince($0)) }) : Format.span(job.runTime)
        switch job.state {
        case .scheduled, .retrying: moment = Moment(job.due ?? job.touchedAt, now)
        default: moment = Moment(job.endedAt ?? job.startedAt ?? job.receivedAt ?? job.sentAt ?? job.touchedAt, now)
        }
        note = job.state == .succeeded ? nil : job.error?.cut(to: 120)
    }

    /// - Parameter record: of the backend itself.
    init(_ record: JobRecord, _ links: Links, _ now: Date) {
        id = record.id
        shortID = Format.shortID(record.id)
        link = links.job(record.id)
        name = record.name
        state = StateView(record.state.rawValue)
        arguments = record.argumentsText.cut(to: 120)
        queue = record.queue
        queueLink = links.queue(record.queue)
        worker = record.worker ?? "–"
        workerLink = nil
        attempt = String(max(1, record.attempts))
        run = .none
        moment = Moment(record.dueAt ?? record.endedAt ?? record.enqueuedAt, now)
        note = record.failure.map { "\($0.type): \($0.message)".cut(to: 120) } ?? record.waitingReason
    }
}

/// A line of the table of queues.
struct QueueRowView: Sendable {
    var name: String
    var link: String
    var note: String?
    var waiting: String
    var scheduled: String
    var running: String
    var failed: String
    var oldest: Quantity
    var out: Quantity
    var workers: String
    /// 0...64, the width of the bar.
    var busyWidth: Int
    var busy: Quantity
    var spark: String
    var isPaused: Bool
}

/// A line of the table of job names.
struct NameRowView: Sendable {
    var name: String
    var link: String
    var rate: Quantity
    var failed: Quantity
    var hasFailures: Bool
    var median: Quantity
    var high: Quantity
    var workers: String
    var spark: String
}

/// A line of the table of workers.
struct WorkerRowView: Sendable {
    var name: String
    var link: String
    /// `alive`, `dead`, `left`.
    var status: String
    var software: String
    var slots: String
    var busyWidth: Int
    var active: String
    var processed: String
    var load: String
    var memory: Quantity
    var heard: Moment
    var note: String?

    init(_ worker: MonitoredWorker, _ links: Links, _ now: Date) {
        name = worker.name
        link = links.worker(worker.name)
        status = worker.isAlive(at: now) ? "alive" : worker.hasLeft ? "left" : "dead"
        let language = worker.isPython.map { $0 ? "Celery" : "Hoist" } ?? "unknown"
        software = language + (worker.version.map { " " + $0 } ?? "")
        let busy = worker.lanes.isEmpty ? worker.active : worker.lanes.values.reduce(0) { $0 + $1.used }
        slots = "\(busy) of " + (worker.slots.map(String.init) ?? "?")
        busyWidth = worker.slots.map { $0 > 0 ? min(64, busy * 64 / $0) : 0 } ?? 0
        active = Format.count(worker.active)
        processed = Format.count(worker.processed)
        load = worker.loadAverage.first.map { Format.decimal($0, digits: 2) } ?? "–"
        memory = Format.bytes(worker.memory)
        heard = Moment(worker.heardAt, now)
        if abs(worker.clockSkew) > 2 {
            note = "clock is \(Format.span(worker.clockSkew).text) \(worker.clockSkew > 0 ? "ahead" : "behind")"
        } else if worker.eventsLeftOut > 0 {
            note = "left out \(Format.count(worker.eventsLeftOut)) events"
        } else if worker.restarts > 0 {
            note = "started again \(Format.count(worker.restarts)) times"
        }
    }
}

/// Something that needs a person: a sentence and where to look.
struct AttentionView: Sendable {
    /// A state, for the icon and the colour.
    var kind: String
    var subject: String
    var sentence: String
    var link: String
    var linkText: String
}

struct ChartView: Sendable {
    var id: String
    var title: String
    var key: Quantity
    var svg: String
    var columns: [String]
    var rows: [Row]

    struct Row: Sendable {
        var time: String
        var values: [String]
    }

    init(id: String, _ chart: Chart, key: Quantity) {
        self.id = id
        title = chart.title
        self.key = key
        svg = chart.svg
        columns = chart.columns
        rows = chart.rows.prefix(100).map { Row(time: $0.time, values: $0.values) }
    }
}
