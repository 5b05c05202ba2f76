#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// The fields that Hoist adds to Celery's headers: one header, `hoist`, with only the members that are set.
///
/// The fields are part of the message, not of a backend's tables, so that they mean the same on every broker.
public struct HoistHeader: Sendable, Hashable {
    /// When the producer enqueued the job. Waiting time is counted from here.
    public var enqueuedAt: Date?
    /// Seconds for which the result is kept, where it differs from the backend's default.
    public var resultRetention: Double?
    /// The unique key that the job holds.
    public var unique: UniqueKey?
    /// The retry policy of this call, where it differs from the job's own.
    public var retry: RetryPolicy?
    /// Seconds without a sign of progress after which the job counts as stuck.
    public var heartbeatLimit: Double?
    /// Bytes of memory that the job's process may hold.
    public var memoryLimit: Int?
    /// True when the job must not run a second time after the death of its worker.
    public var isAtMostOnce = false
    /// The partition of the job, see ``Job/partitionKey``. Empty when the job is known to have none; nil when the
    /// producer did not say.
    public var partition: String?
    /// The cost of the job against rate limits; nil for 1.
    public var cost: Int?
    /// The run of a schedule that the job is; nil for other jobs.
    public var tick: Tick?
    /// The step of a workflow that the job is; nil for other jobs.
    public var step: WorkflowStep?

    public init() {}

    init(_ value: WireValue) {
        guard case .object(let object) = value else { return }
        enqueuedAt = object["enqueued_at"]?.doubleValue.flatMap(Date.init(boundedSecondsSinceEpoch:))
        resultRetention = object["result_retention"]?.doubleValue.map { Duration(boundedSeconds: $0).inSeconds }
        unique = object["unique"].flatMap { try? WireDecoder.decode(UniqueKey.self, from: $0) }
        retry = object["retry"].flatMap { try? WireDecoder.decode(RetryPolicy.self, from: $0) }
        heartbeatLimit = object["heartbeat_limit"]?.doubleValue.map { Duration(boundedSeconds: $0).inSeconds }
        memoryLimit = object["memory_limit"]?.integerValue.map { Int($0.clamped(to: 0...(1 << 60))) }
        isAtMostOnce = object["at_most_once"]?.boolValue ?? false
        partition = object["partition"]?.stringValue
        tick = object["tick"].flatMap(Tick.init)
        step = object["step"].flatMap(WorkflowStep.init)
        cost = object["cost"]?.integerValue.map { Int($0.clamped(to: 0...1_000_000_000)) }
    }

    var wireValue: WireValue.Object {
        var object: WireValue.Object = [:]
        if let enqueuedAt { object["enqueued_at"] = .double(enqueuedAt.timeIntervalSince1970) }
        if let resultRetention { object["result_retention"] = .double(resultRetention) }
        if let unique { object["unique"] = try? WireEncoder.encode(unique) }
        if let retry { object["retry"] = try? WireEncoder.encode(retry) }
        if let heartbeatLimit { object["heartbeat_limit"] = .double(heartbeatLimit) }
        if let memoryLimit { object["memory_limit"] = .integer(Int64(memoryLimit)) }
        if isAtMostOnce { object["at_most_once"] = .bool(true) }
        if let partition { object["partition"] = .string(partition) }
        if let cost { object["cost"] = .integer(Int64(cost)) }
        if let tick { object["tick"] = tick.wireValue }
        if let step { object["step"] = step.wireValue }
        return object
    }
}
