#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// An option of one call, which overrides the default of its job.
public struct EnqueueOption: Sendable {
    let apply: @Sendable (inout EnqueueRequest) -> Void

    private static func option(_ apply: @escaping @Sendable (inout EnqueueRequest) -> Void) -> EnqueueOption {
        EnqueueOption(apply: apply)
    }

    /// The job's id, which is also the key of its result: up to 1,024 bytes. A job with an id that exists already is
    /// not enqueued again.
    public static func id(_ id: JobID) -> EnqueueOption { option { $0.id = id } }
    /// The queue, in place of the queue of the job and of the routing rules.
    public static func queue(_ name: String) -> EnqueueOption { option { $0.queue = name } }
    /// 0...9, 9 is the most urgent. Other numbers count as the nearest of these.
    public static func priority(_ urgency: Int) -> EnqueueOption {
        option { $0.priority = urgency.clamped(to: Priority.range) }
    }
    /// Not before `delay` from now.
    public static func after(_ delay: Duration) -> EnqueueOption { option { $0.eta = $0.now.advanced(by: delay) } }
    /// Not before `date`.
    public static func at(_ date: Date) -> EnqueueOption { option { $0.eta = date } }
    /// Dropped and marked expired when not started this long from now.
    public static func expires(after delay: Duration) -> EnqueueOption {
        option { $0.expires = $0.now.advanced(by: delay) }
    }
    /// Dropped and marked expired when not started by then.
    public static func expires(at date: Date) -> EnqueueOption { option { $0.expires = date } }
    public static func unique(_ key: UniqueKey) -> EnqueueOption { option { $0.unique = key } }
    /// Labels that a worker must have to run the job, in place of the labels in its options.
    public static func requires(_ labels: String...) -> EnqueueOption { option { $0.requires = Set(labels) } }
    /// For one worker alone, which must be ``Worker/Configuration/isAddressable``. While no worker of that name lives,
    /// the job waits: give it an expiry where it must not wait without end.
    public static func worker(_ name: String) -> EnqueueOption { option { $0.worker = name } }
    /// For the worker that runs the current job, so that a follow-up job finds the files which the current job left on
    /// its disk. Otherwise as ``worker(_:)``.
    public static let sameWorker = option { $0.isForSameWorker = true }
    /// The partition of the job, in place of ``Job/partitionKey``.
    public static func partition(_ key: String) -> EnqueueOption { option { $0.partition = key } }
    /// The cost of the job against rate limits: 0...1,000,000,000, 1 by default. A job of cost 0 is neither delayed nor
    /// counted by rates. Earlier jobs of its partition still delay it.
    public static func cost(_ cost: Int) -> EnqueueOption { option { $0.cost = cost.clamped(to: 0...1_000_000_000) } }
    public static func retry(_ policy: RetryPolicy) -> EnqueueOption { option { $0.retry = policy } }
    /// See ``RunLimits/time``.
    public static func timeLimit(_ limit: Duration) -> EnqueueOption { option { $0.limits.time = limit } }
    /// See ``RunLimits/hardTime``. In lanes other than `process` it counts as a soft limit.
    public static func hardTimeLimit(_ limit: Duration) -> EnqueueOption { option { $0.limits.hardTime = limit } }
    /// See ``RunLimits/heartbeat``.
    public static func heartbeatLimit(_ limit: Duration) -> EnqueueOption { option { $0.limits.heartbeat = limit } }
    /// See ``RunLimits/memory``. Lanes other than `process` cannot enforce it.
    public static func memoryLimit(_ limit: ByteCount) -> EnqueueOption {
        option { $0.limits.memory = limit }
    }
    public static func result(_ policy: ResultPolicy) -> EnqueueOption { option { $0.result = policy } }
    public static func delivery(_ guarantee: DeliveryGuarantee) -> EnqueueOption { option { $0.delivery = guarantee } }
    /// A header that travels with the job and is inherited by the jobs it enqueues.
    public static func header(_ name: String, _ value: WireValue) -> EnqueueOption {
        option { $0.headers[name] = value }
    }
}

/// The request of one call, the same for each of its jobs: the defaults of the job, overridden by the call's options.
struct EnqueueRequest {
    var name: String
    var secretArguments: Set<String>
    var now: Date
    var id: JobID?
    var queue: String?
    var priority: Int?
    var eta: Date?
    var expires: Date?
    var unique: UniqueKey?
    /// Whether also the key that the type of the job declares is left out.
    var isNeverUnique = false
    var retry: RetryPolicy?
    var limits: RunLimits
    var result: ResultPolicy
    var delivery: DeliveryGuarantee
    var headers: WireValue.Object = [:]
    var partition: String?
    var cost: Int?
    var requires: Set<String>
    var worker: String?
    var isForSameWorker = false

    init(name: String, secretArguments: Set<String>, defaults: JobOptions, now: Date) {
        self.name = name
        self.secretArguments = secretArguments
        self.now = now
        priority = defaults.priority
        limits = defaults.runLimits
        expires = defaults.expiresAfter.map(now.advanced(by:))
        result = defaults.result
        delivery = defaults.delivery
        requires = defaults.requires
    }

    /// Refuses options that the broker cannot keep, which would be ignored otherwise.
    /// - Throws: ``BackendError`` `.misuse` with the name of the option.
    func check(_ abilities: BrokerAbilities) throws(BackendError) {
        if unique != nil { try need(.uniqueKeys, for: "the option unique", of: abilities) }
        if eta != nil { try need(.delays, for: "the option after or at", of: abilities) }
    }

    /// - Throws: ``BackendError`` `.misuse` when the broker lacks an ability.
    func need(
        _ ability: BrokerAbilities, for what: String, of abilities: BrokerAbilities
    ) throws(BackendError) {
        guard !abilities.contains(ability) else { return }
        throw BackendError(.misuse, "\(name) is enqueued with \(what), which this broker cannot keep")
    }

    /// The queue that the job goes to.
    /// - Parameters:
    ///   - usual: its queue, unless the call names another.
    ///   - parent: the job that this process is running, if any.
    /// - Throws: ``BackendError`` `.misuse` when the current worker is not addressable or the labels are not allowed.
    func place(usual: String, parent: JobContext?) throws(BackendError) -> String {
        if isForSameWorker {
            guard let parent, parent.isWorkerAddressable else {
                throw BackendError(
                    .misuse,
                    "\(name) is meant for the worker that runs this job, and there is none that can be addressed")
            }
            return SpecialQueue.direct(to: parent.worker)
        }
        if let worker { return SpecialQueue.direct(to: worker) }
        guard SpecialQueue.areLabels(requires) else {
            throw BackendError(
                .misuse,
                "a job requires at most 4 labels, which must not be empty or hold commas, brackets or line breaks")
        }
        return SpecialQueue.labelled(queue ?? usual, requires)
    }

    /// The message of a job. Inside a handler it becomes a child of the running job and inherits its headers.
    /// - Throws: ``WireError`` when the arguments are larger or deeper than a worker would read, or the name or id is
    ///   empty or too long.
    func message(
        _ arguments: Arguments, partition: String?, id: JobID, queue: String, origin: String, parent: JobContext?
    ) throws(WireError) -> Message {
        var headers = MessageHeaders(task: name, id: id)
        try headers.check()
        headers.eta = eta
        headers.expires = expires
        headers.softTimeLimit = limits.time?.inSeconds
        headers.hardTimeLimit = limits.hardTime?.inSeconds
        headers.rootID = parent.map { $0.rootID } ?? id
        headers.parentID = parent?.id
        headers.argumentsText = ArgumentsText.positional(arguments.positional)
        headers.keywordArgumentsText = ArgumentsText.keyword(arguments.keyword, secret: secretArguments)
        headers.origin = origin
        headers.custom = parent.map { $0.headers.merging(self.headers) } ?? self.headers
        // What a scheduled run enqueues is no scheduled run.
        if parent != nil { headers.custom[Tick.beatHeader] = self.headers[Tick.beatHeader] }
        headers.hoist.enqueuedAt = now
        headers.hoist.unique = unique
        headers.hoist.retry = retry
        headers.hoist.heartbeatLimit = limits.heartbeat?.inSeconds
        headers.hoist.memoryLimit = limits.memory?.bytes
        headers.hoist.isAtMostOnce = delivery.isAtMostOnce
        headers.hoist.partition = partition
        headers.hoist.cost = cost
        switch result.kind {
        case .backendDefault: break
        case .kept(let duration): headers.hoist.resultRetention = duration.inSeconds
        case .ignored: headers.ignoresResult = true
        }
        var properties = MessageProperties(routingKey: queue, deliveryTag: id)
        properties.correlationID = id
        properties.priority = priority
        if let expires {
            properties.expiration = String(Int64(bounded: max(0, expires.timeIntervalSince(now) * 1000)))
        }
        let body = MessageBody(arguments: arguments)
        let bytes = body.encoded()
        // In an envelope the body grows by a third, and the headers come on top.
        let limits = WireLimits(maximumBytes: (WireLimits.default.maximumBytes - 65_536) / 4 * 3)
        try limits.check(.array([.array(arguments.positional), .object(arguments.keyword)]), encodedAs: bytes)
        return Message(headers: headers, properties: properties, body: bytes)
    }
}
