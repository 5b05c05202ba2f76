public import Hoist

/// What the routes of jobs show of a job.
///
/// Always: id, state, progress, output, the kind and message of a failure, and the times at which the job was enqueued,
/// started and ended. The rest is for those who run the program: arguments, backtraces, lines that the job wrote, names
/// of machines.
public struct JobView: OptionSet, Sendable, Hashable {
    public let rawValue: Int

    public init(rawValue: Int) { self.rawValue = rawValue }

    /// Nothing besides what is always shown.
    public static let result: JobView = []
    /// Why a job waits, and when it is due.
    public static let waiting = JobView(rawValue: 1)
    /// How many attempts have begun, and how many workers have died with the job.
    public static let attempts = JobView(rawValue: 2)
    /// The whole record, as `hoist job --json` prints it.
    public static let everything = JobView(rawValue: 7)

    /// Why a job failed, for everybody: what the handler says, and of its surroundings no more than their kind. The
    /// message of the failure itself may name machines, paths, and the last lines of a crash.
    public static func message(of failure: JobFailure) -> String {
        switch failure.kind {
        case .workerLost: "the worker that ran the job died"
        case .crashed: "the process that ran the job crashed"
        case .memoryExceeded: "the job needed more memory than it may have"
        case .undecodable: "the job could not be read"
        case .notEncodable: "the output could not be stored"
        case .unsupported: "the job asks for something that its worker cannot do"
        default: failure.message
        }
    }

    /// Why a job has no output, for those whom this view is for.
    func reason(_ error: JobError) -> String {
        guard !contains(.everything), let failure = error.failure else { return error.description }
        return "the job failed: " + Self.message(of: failure)
    }

    func shown(_ record: JobRecord) -> WireValue {
        guard case .object(let all) = record.wireValue else { return .null }
        guard !contains(.everything) else { return .object(all) }
        var names = ["id", "state", "progress", "output", "enqueued_at", "started_at", "ended_at"]
        if contains(.waiting) { names += ["waiting_reason", "due_at"] }
        if contains(.attempts) { names += ["attempts", "lost_workers"] }
        var shown: WireObject = [:]
        for name in names { shown[name] = all[name] }
        // A job that is tried again has failed before, and has not failed.
        if record.state == .failed, let failure = record.failure {
            shown["failure"] = ["kind": .string("\(failure.kind)"), "message": .string(Self.message(of: failure))]
        }
        return .object(shown)
    }
}
