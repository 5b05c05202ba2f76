#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// The state of a job.
public enum JobState: String, Sendable, Hashable, Codable, CaseIterable {
    /// Ready for a worker.
    case waiting
    /// Due later.
    case scheduled
    /// Failed, and due for another attempt.
    case retrying
    case running
    case succeeded
    /// Given up: a dead letter, kept until it is requeued or dropped, or its retention ends.
    case failed
    case cancelled
    /// Not started in time.
    case expired

    public var hasEnded: Bool {
        switch self {
        case .waiting, .scheduled, .retrying, .running: false
        case .succeeded, .failed, .cancelled, .expired: true
        }
    }
}

/// The progress of a running job.
public struct JobProgress: Sendable, Hashable, Codable {
    /// 0...1; nil when the job cannot tell.
    public var fraction: Double?
    public var message: String?
    /// Further details that the job shows.
    public var details: [String: String]?

    public init(fraction: Double? = nil, message: String? = nil, details: [String: String]? = nil) {
        self.fraction = fraction
        self.message = message
        self.details = details
    }

    /// A fraction that is no number counts as unknown, any other is clamped.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        fraction = try container.decodeIfPresent(Double.self, forKey: .fraction).flatMap(Self.bounded)
        message = try container.decodeIfPresent(String.self, forKey: .message)
        details = try container.decodeIfPresent([String: String].self, forKey: .details)
    }

    /// A fraction from an outside source.
    package static func bounded(_ fraction: Double) -> Double? {
        fraction.isNaN ? nil : fraction.clamped(to: 0...1)
    }
}

/// An error that a program in another language receives as an error of its own: a Python client raises
/// `module.typeName(*arguments)` where it has such a class.
public protocol CrossLanguageError: Error {
    var typeName: String { get }
    /// The module of the type; nil when there is none.
    var module: String? { get }
    /// The arguments of the error's initializer.
    var arguments: [WireValue] { get }
}

/// Why an attempt did not succeed.
public struct JobFailure: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    public struct Kind: Sendable, Hashable, Codable, CustomStringConvertible {
        private enum Value: String, Codable {
            case raised, badArguments, undecodable, timedOut, stuck, crashed, memoryExceeded, workerLost, deadLettered,
                notEncodable, unsupported, dropped
        }
        private let value: Value
        private init(_ value: Value) { self.value = value }
        public init(from decoder: any Decoder) throws { value = try Value(from: decoder) }
        public func encode(to encoder: any Encoder) throws { try value.encode(to: encoder) }
        public var description: String { value.rawValue }

        /// The handler threw.
        public static let raised = Kind(.raised)
        /// The arguments do not fit the job.
        public static let badArguments = Kind(.badArguments)
        /// The message cannot be read.
        public static let undecodable = Kind(.undecodable)
        /// The time limit passed.
        public static let timedOut = Kind(.timedOut)
        /// The job gave no sign of progress within its heartbeat limit.
        public static let stuck = Kind(.stuck)
        /// The job's process died: see ``JobFailure/crash``.
        public static let crashed = Kind(.crashed)
        /// The job's process held more memory than its limit allows.
        public static let memoryExceeded = Kind(.memoryExceeded)
        /// The worker died or was cut off while it had the job.
        public static let workerLost = Kind(.workerLost)
        /// The handler gave up on purpose.
        public static let deadLettered = Kind(.deadLettered)
        /// The output could not be encoded.
        public static let notEncodable = Kind(.notEncodable)
        /// The message asks for something that this worker cannot do, such as to complete a chord.
        public static let unsupported = Kind(.unsupported)
        /// The limit of running jobs was reached, and its policy prefers other jobs.
        public static let dropped = Kind(.dropped)
    }

    public var kind: Kind
    /// The type of the error.
    public var type: String
    public var message: String
    /// The module that defines the type, for programs in other languages; nil when they do not need it.
    public var module: String?
    /// The arguments from which such a program creates the error; nil for the message alone.
    public var arguments: [WireValue]?
    /// How the job's process died, if it died.
    public var crash: Crash?

    public init(
        kind: Kind, type: String, message: String, module: String? = nil, arguments: [WireValue]? = nil,
        crash: Crash? = nil
    ) {
        self.kind = kind
        self.type = type
        self.message = String(message.prefix(8192))
        self.module = module
        self.arguments = arguments
        self.crash = crash
    }

    /// The death of a process that ran a job.
    public struct Crash: Sendable, Hashable, Codable {
        /// The signal that killed the process, numbered as on its machine; nil when the process exited by itself.
        public var signal: Int?
        /// The exit status, when the process exited by itself.
        public var status: Int?
        /// The last lines that the process wrote, at most 20.
        public var lastLines: [String]
        /// The backtrace of the crashed thread, if Swift's runtime printed one.
        public var backtrace: String?

        public init(signal: Int? = nil, status: Int? = nil, lastLines: [String] = [], backtrace: String? = nil) {
            self.signal = signal
            self.status = status
            self.lastLines = lastLines
            self.backtrace = backtrace
        }
    }

    /// Whether the job's process died. Backends count these failures, because a job must not kill processes without
    /// limit.
    package var isDeath: Bool { kind == .crashed || kind == .memoryExceeded }

    /// The failure of a handler that threw `error`.
    package init(raised error: any Error) {
        if let error = error as? any CrossLanguageError {
            self.init(
                kind: .raised, type: error.typeName, message: String(describing: error), module: error.module,
                arguments: error.arguments)
        } else {
            self.init(
                kind: .raised, type: String(describing: Swift.type(of: error)), message: String(describing: error))
        }
    }

    /// For people: `SMTPError: no route to host (raised)`.
    public var description: String {
        // A handler that gives up on purpose says why in its own words.
        kind == .deadLettered ? "\(message) (\(kind))" : "\(type): \(message) (\(kind))"
    }

    /// What a program in another language shows as the traceback.
    package var trace: String {
        var lines = [description]
        if let crash {
            lines += crash.lastLines
            if let backtrace = crash.backtrace { lines.append(backtrace) }
        }
        return lines.joined(separator: "\n")
    }

    /// The worker died, or was cut off for longer than its lease.
    package static func workerLost(_ name: String) -> JobFailure {
        JobFailure(
            kind: .workerLost, type: "WorkerLost",
            message: "the worker \(name) died or was cut off while it had the job")
    }

    /// A limit preferred another job.
    package static let dropped = JobFailure(
        kind: .dropped, type: "JobLimit", message: "as many jobs run as the limit allows, and it keeps no more")

    /// The worker stopped gracefully, but the job must not start again.
    package static let stoppedAtMostOnce = JobFailure(
        kind: .workerLost, type: "WorkerLost",
        message: "its worker stopped before it was done, and it runs at most once")
}

/// One attempt that did not end in success.
public struct AttemptRecord: Sendable, Hashable, Codable {
    public var number: Int
    public var worker: String?
    public var startedAt: Date?
    public var endedAt: Date
    /// `retried`, `failed`, `snoozed`, `refused`, `handed back`, `worker lost`, `cancelled`.
    public var outcome: String
    public var failure: JobFailure?
    /// The resources that the attempt used, where they can be measured.
    public var usage: ResourceUsage?

    public init(
        number: Int, worker: String?, startedAt: Date?, endedAt: Date, outcome: String, failure: JobFailure?,
        usage: ResourceUsage? = nil
    ) {
        self.number = number
        self.worker = worker
        self.startedAt = startedAt
        self.endedAt = endedAt
        self.outcome = outcome
        self.failure = failure
        self.usage = usage
    }
}

/// All that a backend knows about one job.
public struct JobRecord: Sendable, Hashable, Codable {
    public var id: JobID
    public var name: String
    public var queue: String
    public var state: JobState
    public var priority: Int
    /// Attempts begun so far, the running one included.
    public var attempts: Int
    /// The number of workers, and of processes of the process lane, that died while they held the job.
    public var lostWorkers: Int
    public var enqueuedAt: Date?
    public var dueAt: Date?
    public var startedAt: Date?
    public var endedAt: Date?
    /// The worker that runs the job, or ran it last.
    public var worker: String?
    public var isCancelRequested: Bool
    public var progress: JobProgress?
    /// The output, of a job that succeeded.
    public var output: WireValue?
    /// The last failure.
    public var failure: JobFailure?
    /// The resources that the last attempt used, where they can be measured.
    public var usage: ResourceUsage?
    /// Attempts that did not succeed, the oldest first.
    public var history: [AttemptRecord]
    /// The arguments as readable text, secrets hidden.
    public var argumentsText: String
    /// The arguments as values, secrets hidden; nil where they are kept as a text that was cut, or holds more than plain
    /// values.
    public var arguments: Arguments? {
        guard let values = PythonLiteral.values(in: argumentsText), values.count <= 2 else { return nil }
        var arguments = Arguments()
        for value in values {
            switch value {
            case .array(let positional): arguments.positional = positional
            case .object(let keyword): arguments.keyword = keyword
            default: return nil
            }
        }
        return arguments
    }
    public var parentID: JobID?
    public var rootID: JobID?
    public var headers: WireValue.Object
    /// Why a waiting job does not run, in words.
    public var waitingReason: String?
    /// Grows with every change of the record.
    public var revision: Int64

    public init(
        id: JobID, name: String, queue: String, state: JobState, priority: Int = 0, attempts: Int = 0,
        lostWorkers: Int = 0,
        enqueuedAt: Date? = nil, dueAt: Date? = nil, startedAt: Date? = nil, endedAt: Date? = nil,
        worker: String? = nil,
        isCancelRequested: Bool = false, progress: JobProgress? = nil, output: WireValue? = nil,
        failure: JobFailure? = nil,
        usage: ResourceUsage? = nil, history: [AttemptRecord] = [], argumentsText: String = "", parentID: JobID? = nil,
        rootID: JobID? = nil,
        headers: WireValue.Object = [:], waitingReason: String? = nil, revision: Int64 = 0
    ) {
        self.id = id
        self.name = name
        self.queue = queue
        self.state = state
        self.priority = priority
        self.attempts = attempts
        self.lostWorkers = lostWorkers
        self.enqueuedAt = enqueuedAt
        self.dueAt = dueAt
        self.startedAt = startedAt
        self.endedAt = endedAt
        self.worker = worker
        self.isCancelRequested = isCancelRequested
        self.progress = progress
        self.output = output
        self.failure = failure
        self.usage = usage
        self.history = history
        self.argumentsText = argumentsText
        self.parentID = parentID
        self.rootID = rootID
        self.headers = headers
        self.waitingReason = waitingReason
        self.revision = revision
    }

    /// Sets the fields that follow from the message itself.
    package mutating func describe(_ message: Message) { describe(message.headers) }

    package mutating func describe(_ message: MessageHeaders) {
        var message = message
        message.hideForeignSecrets()
        argumentsText =
            message.argumentsText == "()"
            ? message.keywordArgumentsText : message.argumentsText + " " + message.keywordArgumentsText
        parentID = message.parentID
        rootID = message.rootID
        headers = message.custom
    }

    /// Why a ready job does not run, judged by the live workers.
    package static func waitingReason(queue: String, name: String, workers: [WorkerPresence]) -> String {
        let live = workers.filter { !$0.isDraining }
        guard !live.isEmpty else { return "no worker is running" }
        let consuming = live.filter { $0.queues.contains(queue) }
        guard !consuming.isEmpty else { return "no live worker consumes the queue \(queue)" }
        guard consuming.contains(where: { $0.jobNames.contains(name) }) else {
            return "no live worker of the queue \(queue) knows the job name \(name)"
        }
        return behindOthers
    }

    /// Why a job waits that nothing holds up but those before it.
    package static let behindOthers = "behind other jobs: every slot that may run it is taken"
}
