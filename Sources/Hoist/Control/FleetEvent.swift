#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// An event of a worker or a client, Swift or Python, as it came over the wire.
///
/// The forms are Celery's (5.7, `celery.events`). Members that a sender left out are nil; ``EventFacts/fields`` has
/// every member as it came.
public enum FleetEvent: Sendable, Hashable {
    case workerOnline(WorkerReport)
    case workerHeartbeat(WorkerReport)
    case workerOffline(WorkerReport)
    /// A client has enqueued a job.
    case sent(TaskReport)
    /// A worker has claimed a job.
    case received(TaskReport)
    case started(TaskReport)
    case succeeded(TaskReport)
    case failed(TaskReport)
    /// An attempt failed, and there will be another.
    case retried(TaskReport)
    /// The job was cancelled or has expired.
    case revoked(TaskReport)
    case rejected(TaskReport)
    /// The handler of a Hoist worker has reported progress.
    case progress(TaskReport)
    /// The handler of a Hoist worker has written lines.
    case log(TaskReport)
    /// The job is back in its queue with no attempt spent: it was snoozed, or its worker gave it back.
    case returned(TaskReport)
    /// The job is back in its queue because the worker died that had it. Told by another worker.
    case takenOver(TaskReport)
    /// A client wants the job cancelled.
    case cancelAsked(TaskReport)
    /// Events may have been missed: the connection was away, or this program was too slow. Told by the stream of
    /// events itself, and by no worker.
    case missed(from: Date, to: Date)
    /// Any other event, of a type that `facts` names.
    case other(EventFacts)

    /// What every event has.
    public var facts: EventFacts {
        switch self {
        case .workerOnline(let worker), .workerHeartbeat(let worker), .workerOffline(let worker): worker.facts
        case .sent(let job), .received(let job), .started(let job), .succeeded(let job), .failed(let job),
            .retried(let job), .revoked(let job), .rejected(let job), .progress(let job), .log(let job),
            .returned(let job), .takenOver(let job), .cancelAsked(let job):
            job.facts
        case .other(let facts): facts
        case .missed(let begin, let end):
            EventFacts(
                type: "hoist-missed", node: "", at: end,
                fields: [
                    "type": "hoist-missed", "from": .double(begin.timeIntervalSince1970),
                    "to": .double(end.timeIntervalSince1970),
                ])
        }
    }

    /// The job that the event is about; nil for events of workers.
    public var job: TaskReport? {
        switch self {
        case .sent(let job), .received(let job), .started(let job), .succeeded(let job), .failed(let job),
            .retried(let job), .revoked(let job), .rejected(let job), .progress(let job), .log(let job),
            .returned(let job), .takenOver(let job), .cancelAsked(let job):
            job
        case .workerOnline, .workerHeartbeat, .workerOffline, .missed, .other: nil
        }
    }
}

/// What every event has.
public struct EventFacts: Sendable, Hashable {
    /// `task-succeeded`, `worker-heartbeat`: a group, a hyphen, a subject.
    public var type: String
    /// The name of the sender, `name@host`.
    public var node: String
    /// When the sender made it, by the sender's clock.
    public var at: Date
    /// Lamport's clock of the sender; nil where it has none.
    public var clock: Int64?
    public var processID: Int?
    /// Every member of the event.
    public var fields: WireValue.Object
}

/// What a worker says of itself.
public struct WorkerReport: Sendable, Hashable {
    public var facts: EventFacts
    /// Seconds between two heartbeats. A worker counts as dead when none came for twice as long.
    public var frequency: Double?
    /// How many jobs run.
    public var active: Int?
    /// How many jobs the worker has accepted since it started.
    public var processed: Int?
    /// The load of the machine in the last 1, 5 and 15 minutes.
    public var loadAverage: [Double]
    /// `hoist`, `py-celery`.
    public var software: String?
    public var version: String?
    /// `Linux`.
    public var system: String?
    public var node: String { facts.node }
}

/// What an event says of a job.
public struct TaskReport: Sendable, Hashable {
    public var facts: EventFacts
    public var id: JobID
    public var name: String?
    /// As readable text, perhaps cut.
    public var positionalText: String?
    public var keywordText: String?
    public var rootID: JobID?
    public var parentID: JobID?
    /// Attempts already made.
    public var retries: Int?
    public var due: Date?
    public var expires: Date?
    public var queue: String?
    /// The lane of a Hoist worker.
    public var lane: String?
    /// The output as readable text, perhaps cut.
    public var result: String?
    /// Seconds.
    public var runTime: Double?
    /// `Type('message')`.
    public var exception: String?
    public var traceback: String?
    /// Of a revoked job: whether it ran.
    public var isTerminated: Bool?
    /// Of a revoked job: whether it was not started in time.
    public var isExpired: Bool?
    public var signal: Int?
    public var progress: JobProgress?
    /// What the handler has written.
    public var lines: [JobLog.Line] = []
    /// The name of the worker that died with the job; nil where none did.
    public var lostWorker: String?
    /// What became of a client's wish to cancel the job: `cancelled`, `requested`, `already-ended` or `unknown`.
    public var cancelResult: String?
    /// The name of the worker or the client.
    public var node: String { facts.node }
}

extension FleetEvent {
    /// The exchange of events.
    static let exchange = "celeryev"

    /// Reads a frame: one event, or an array of any length. What is no event in an array is left out.
    /// - Throws: ``WireError`` for a frame that is none.
    static func read(_ bytes: [UInt8]) throws(WireError) -> [FleetEvent] {
        let frame = try ControlFrame(bytes, limits: .events)
        switch frame.body {
        case .object(let fields):
            guard let event = FleetEvent(fields) else { throw WireError("the event has no type or no sender") }
            return [event]
        case .array(let elements): return elements.compactMap { $0.objectValue.flatMap(FleetEvent.init) }
        default: throw WireError("the frame holds no event")
        }
    }

    /// - Returns: nil for what names neither a type nor a sender.
    package init?(_ fields: WireValue.Object) {
        guard let type = fields["type"]?.stringValue, !type.isEmpty, let node = fields["hostname"]?.stringValue else {
            return nil
        }
        let time = fields["timestamp"]?.doubleValue.flatMap(Date.init(boundedSecondsSinceEpoch:))
        let facts = EventFacts(
            type: type, node: node, at: time ?? Date(timeIntervalSince1970: 0), clock: fields["clock"]?.integerValue,
            processID: fields["pid"]?.integerValue.map(Int.init(clamping:)), fields: fields)
        switch type {
        case "worker-online": self = .workerOnline(WorkerReport(facts))
        case "worker-heartbeat": self = .workerHeartbeat(WorkerReport(facts))
        case "worker-offline": self = .workerOffline(WorkerReport(facts))
        default:
            guard let id = fields["uuid"].flatMap(MessageHeaders.identifier), !id.isEmpty, id.utf8.count <= 1024 else {
                self = .other(facts)
                return
            }
            let job = TaskReport(facts, id)
            self =
                switch type {
                case "task-sent": .sent(job)
                case "task-received": .received(job)
                case "task-started": .started(job)
                case "task-succeeded": .succeeded(job)
                case "task-failed": .failed(job)
                case "task-retried": .retried(job)
                case "task-revoked": .revoked(job)
                case "task-rejected": .rejected(job)
                case "hoist-progress": .progress(job)
                case "hoist-log": .log(job)
                case "hoist-snoozed", "hoist-returned": .returned(job)
                case "hoist-taken-over": .takenOver(job)
                case "hoist-cancel": .cancelAsked(job)
                default: .other(facts)
                }
        }
    }
}

extension WorkerReport {
    fileprivate init(_ facts: EventFacts) {
        self.facts = facts
        let fields = facts.fields
        frequency = fields["freq"]?.doubleValue.flatMap { $0.isFinite && $0 > 0 ? $0 : nil }
        active = fields["active"]?.integerValue.map { Int($0.clamped(to: 0...1_000_000)) }
        processed = fields["processed"]?.integerValue.map { Int($0.clamped(to: 0...1_000_000_000_000_000)) }
        loadAverage = (fields["loadavg"]?.arrayValue ?? []).prefix(3).compactMap(\.doubleValue)
        software = fields["sw_ident"]?.stringValue
        version = fields["sw_ver"]?.stringValue
        system = fields["sw_sys"]?.stringValue
    }
}

extension TaskReport {
    fileprivate init(_ facts: EventFacts, _ id: JobID) {
        self.facts = facts
        self.id = id
        let fields = facts.fields
        func date(_ key: String) -> Date? { fields[key].flatMap(TypedValue.date) }
        name = fields["name"]?.stringValue
        positionalText = fields["args"]?.stringValue
        keywordText = fields["kwargs"]?.stringValue
        rootID = fields["root_id"].flatMap(MessageHeaders.identifier)
        parentID = fields["parent_id"].flatMap(MessageHeaders.identifier)
        retries = fields["retries"]?.integerValue.map { Int($0.clamped(to: 0...1_000_000_000)) }
        due = date("eta")
        expires = date("expires")
        queue = fields["queue"]?.stringValue
        lane = fields["lane"]?.stringValue
        result = fields["result"]?.stringValue
        runTime = fields["runtime"]?.doubleValue.flatMap { $0.isFinite ? $0.clamped(to: 0...1e10) : nil }
        exception = fields["exception"]?.stringValue
        traceback = fields["traceback"]?.stringValue
        isTerminated = fields["terminated"]?.boolValue
        isExpired = fields["expired"]?.boolValue
        signal = fields["signum"]?.integerValue.map(Int.init(clamping:))
        lostWorker = fields["lost_worker"]?.stringValue
        switch facts.type {
        case "hoist-progress":
            progress = JobProgress(
                fraction: fields["fraction"]?.doubleValue.flatMap(JobProgress.bounded),
                message: fields["message"]?.stringValue)
        case "hoist-log":
            lines = (fields["lines"]?.arrayValue ?? []).prefix(1000).compactMap { line in
                guard let text = line["text"]?.stringValue else { return nil }
                let time = line["at"]?.doubleValue.flatMap(Date.init(boundedSecondsSinceEpoch:))
                return JobLog.Line(
                    time: time ?? facts.at, source: line["source"]?.stringValue ?? "", text: text)
            }
        case "hoist-cancel": (cancelResult, result) = (result, nil)
        default: break
        }
    }
}
