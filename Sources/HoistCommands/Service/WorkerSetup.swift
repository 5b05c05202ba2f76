public import ArgumentParser
import CoreMetrics
public import Hoist
public import Logging
public import ServiceLifecycle

/// What a program makes its worker of, see ``ServiceApp/makeWorker(_:)``.
public struct WorkerSetup<Options: ParsableArguments> {
    /// Where the jobs wait.
    public let backend: Backend
    /// The program's own options.
    public let options: Options
    public let logger: Logger
    /// Everything of the worker that has a default. The command line and the environment come before what the program
    /// says here.
    public var configuration: Worker.Configuration
    /// Run beside the worker, such as a database client that handlers share. They start before the worker and stop
    /// after it, in the reverse order. None by default.
    public var services: [any Service] = []

    let choices: WorkerChoices
    /// What probes tell of the worker; nil where nobody asks.
    private let probedMetrics: (any MetricsFactory)?

    init(
        backend: Backend, options: Options, logger: Logger, choices: WorkerChoices, probedMetrics: (any MetricsFactory)?
    ) {
        self.backend = backend
        self.options = options
        self.logger = logger
        self.probedMetrics = probedMetrics
        configuration = Worker.Configuration()
        self.choices = choices
        choices.apply(to: &self.configuration)
    }

    /// A worker as the command line asks for it.
    /// - Parameters:
    ///   - queues: those that are consumed when `--queue` and `HOIST_QUEUE` name none.
    ///   - lanes: the slots of each lane, as `Worker` takes them; `--concurrency` and `HOIST_CONCURRENCY` come first.
    ///   - handlers: the code of each kind of job.
    ///   - schedules: jobs that repeat. None by default.
    public func worker(
        queues: [QueueSubscription] = ["default"], lanes: [Lane] = [], @HandlerBuilder handlers: () -> [Handler],
        @ScheduleBuilder schedules: () -> [Schedule] = { [] }
    ) -> Worker {
        var configuration = configuration
        choices.apply(to: &configuration)
        if let probedMetrics {
            configuration.metrics = MultiplexMetricsHandler(
                factories: [probedMetrics, configuration.metrics ?? MetricsSystem.factory])
        }
        return Worker(
            backend, queues: choices.queues(besides: queues), lanes: choices.lanes(besides: lanes),
            configuration: configuration, logger: logger, handlers: handlers, schedules: schedules)
    }
}

/// What the command line, or the environment, says of a worker; nil and empty where it says nothing.
struct WorkerChoices: Sendable {
    /// The size of a lane.
    struct Slots: Sendable, Equatable {
        /// Nil for every lane.
        var lane: LaneKind?
        var range: ClosedRange<Int>
    }

    var queues: [QueueSubscription] = []
    var concurrency: [Slots] = []
    var name: String?
    var labels: Set<String>?
    var drain: Duration?
    var isBurst = false
    var events: Worker.EventMode?
    var control: ControlMode?

    func apply(to configuration: inout Worker.Configuration) {
        if let name { configuration.name = name }
        if let labels { configuration.labels = labels }
        if let drain { configuration.drainTimeout = drain }
        if isBurst { configuration.isBurst = true }
        if let events { configuration.events = events }
        if let control { configuration.control = control }
    }

    /// The queues that are consumed: those named, each with what the program says of it.
    func queues(besides own: [QueueSubscription]) -> [QueueSubscription] {
        guard !queues.isEmpty else { return own }
        return queues.map { named in
            guard var known = own.first(where: { $0.name == named.name }) else { return named }
            known.concurrency = named.concurrency ?? known.concurrency
            return known
        }
    }

    func lanes(besides own: [Lane]) -> [Lane] {
        // The last entry of a lane counts.
        own
            + concurrency.flatMap { slots in
                (slots.lane.map { [$0] } ?? LaneKind.all).map { lane in
                    // The async lane does not grow and shrink.
                    Lane.of(lane, lane == .async ? slots.range.upperBound...slots.range.upperBound : slots.range)
                }
            }
    }

    /// - Throws: ``CommandFailure`` for a worker that does not do what was asked for.
    func check(_ worker: Worker) throws {
        var wanted = worker.configuration
        apply(to: &wanted)
        let isObeyed =
            wanted.name == worker.configuration.name && wanted.labels == worker.configuration.labels
            && wanted.drainTimeout == worker.configuration.drainTimeout
            && wanted.isBurst == worker.configuration.isBurst && wanted.events == worker.configuration.events
            && wanted.control == worker.configuration.control
            && (queues.isEmpty || queues.map(\.name) == worker.queues.map(\.name))
            && (concurrency.isEmpty || lanes(besides: []) == Array(worker.lanes.suffix(lanes(besides: []).count)))
        guard isObeyed else {
            throw CommandFailure(
                "the program makes a worker that does not obey the command line; it must be made by setup.worker(…)")
        }
    }

    /// - Throws: `ValidationError` for what is neither NAME nor NAME:CONCURRENCY.
    static func subscription(_ text: String, of source: String = "--queue") throws -> QueueSubscription {
        // A name may hold colons itself: only a number behind the last one is a limit.
        var (name, limit): (Substring, Int?) = (text[...], nil)
        if let colon = text.lastIndex(of: ":"), let number = Int(text[text.index(after: colon)...]) {
            (name, limit) = (text[..<colon], number)
        }
        guard !name.isEmpty, limit ?? 1 >= 1 else {
            throw ValidationError("\(source) takes NAME or NAME:CONCURRENCY, not \(TerminalText.line(text))")
        }
        return QueueSubscription(String(name), concurrency: limit)
    }

    /// - Throws: `ValidationError` for what is neither N, MIN-MAX, LANE=N nor LANE=MIN-MAX.
    static func slots(_ text: String, of source: String = "--concurrency") throws -> Slots {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let lane = parts.count == 2 ? LaneKind.all.first { $0.name == parts[0] } : nil
        let ends = (parts.last ?? "").split(separator: "-", omittingEmptySubsequences: false).map { Int($0) ?? 0 }
        guard parts.count == 1 || lane != nil, (1...2).contains(ends.count), let least = ends.first,
            let most = ends.last, least >= 1, most >= least,
            most <= 100_000
        else {
            throw ValidationError(
                "\(source) takes N, LANE=N or LANE=MIN-MAX with a lane async, blocking or process, not "
                    + TerminalText.line(text))
        }
        guard least == most || lane != .async else {
            throw ValidationError("the async lane does not grow and shrink: \(source) takes async=N")
        }
        return Slots(lane: lane, range: least...most)
    }
}
