/// What a worker is made of, checked: handlers by name, queues, lanes, limits.
struct WorkerSetup: Sendable {
    /// `name@host`.
    let name: String
    let handlers: [String: RegisteredHandler]
    /// With the queues that are for this worker alone or for its labels.
    let queues: [QueueSubscription]
    /// The slots of each lane that a handler uses.
    let lanes: [LaneKind: Int]
    /// Of those lanes that grow and shrink.
    let ranges: [LaneKind: ClosedRange<Int>]
    /// What the code says of every job and queue of this worker; an empty list where it says nothing of a job.
    let limits: [LimitTarget: [JobLimit]]
    /// The name that a kind of job has limits under, by alias.
    let aliases: [String: String]
    let rules: WorkerMachine.Rules

    init(
        backend: Backend, queues: [QueueSubscription], lanes: [Lane], handlers: [Handler],
        configuration: Worker.Configuration
    ) throws(WorkerError) {
        self.handlers = CanvasHandlers.added(to: try Self.byName(handlers))
        guard !queues.isEmpty else { throw WorkerError(message: "the worker has no queue to consume") }
        guard Set(queues.map(\.name)).count == queues.count else {
            throw WorkerError(message: "a queue is named twice")
        }
        limits = Self.limits(of: queues, handlers)
        aliases = Dictionary(handlers.flatMap { handler in handler.names.dropFirst().map { ($0, handler.names[0]) } }) {
            first, _ in first
        }
        if backend.limits == nil, let target = limits.first(where: { !$0.value.isEmpty })?.key {
            throw WorkerError(message: "the \(target) has limits, and this backend cannot keep any")
        }
        name = NodeName.of(configuration.name)
        if let taken = configuration.commands.map(\.name).first(where: { BuiltInCommand.byName[$0] != nil }) {
            throw WorkerError(message: "every worker has a command \(taken): give yours another name")
        }
        guard SpecialQueue.areLabels(configuration.labels) else {
            throw WorkerError(
                message:
                    "a worker has at most 4 labels, which must not be empty or hold commas, brackets or line breaks")
        }
        guard backend.broadcasts != nil || configuration.broadcastChannels.isEmpty else {
            throw WorkerError(message: "the worker asks for broadcasts, and this backend has none")
        }
        for queue in queues { try Self.check(queue, backend) }
        let isAddressed = configuration.isAddressable || !configuration.broadcastChannels.isEmpty
        // Jobs are sent to it under its whole name, and under the name as it is configured.
        var own = isAddressed ? [name] : []
        if isAddressed, let configured = configuration.name, configured != name { own.append(configured) }
        self.queues =
            own.map { QueueSubscription(SpecialQueue.direct(to: $0)) }
            + queues.flatMap { Self.parts(of: $0, configuration) }
        guard Set(self.queues.map(\.name)).count == self.queues.count else {
            throw WorkerError(
                message: "a queue is named that is the part of another for the worker's labels, or the worker's own")
        }
        let used = Set(handlers.map(\.lane))
        var slots: [LaneKind: Int] = [:]
        var ranges: [LaneKind: ClosedRange<Int>] = [:]
        for lane in used {
            let asked = lanes.last { $0.kind == lane }
            slots[lane] = asked?.slots ?? lane.defaultSlots
            if let range = asked?.range, range.count > 1 { ranges[lane] = range }
        }
        try Self.checkNeeds(handlers, slots: slots, lanes: lanes, resources: configuration.resources)
        (self.lanes, self.ranges) = (slots, ranges)
        rules = WorkerMachine.Rules(
            needs: self.handlers.mapValues(\.needs), order: configuration.order,
            // A person may set limits for any job, so that it must be known for all of them what they belong to.
            findsPartition: backend.limits != nil
                ? Self.partitionFinder(self.handlers, configuration.client.sealing) : nil,
            isBurst: configuration.isBurst, burstLeavesDelayedJobs: configuration.burstLeavesDelayedJobs,
            drainTimeout: configuration.drainTimeout.inMicroseconds,
            // A worker that ends when its queues are empty waits for nothing.
            creditMayLast: !configuration.isBurst && !used.contains(.process)
                && Self.areIndependent(Set(self.handlers.values.map(\.needs))))
    }

    /// Refuses what the backend cannot do for a queue.
    static func check(_ queue: QueueSubscription, _ backend: Backend) throws(WorkerError) {
        guard backend.topics != nil || queue.topics.isEmpty else {
            throw WorkerError(message: "the worker asks for topics, and this backend has none")
        }
        guard backend.limits != nil || queue.limits?.isEmpty ?? true else {
            throw WorkerError(
                message: "the queue \(queue.name) has limits, and this backend cannot keep any")
        }
    }

    /// The parts of a queue that a worker consumes, those for workers with its labels first.
    static func parts(
        of queue: QueueSubscription, _ configuration: Worker.Configuration
    ) -> [QueueSubscription] {
        SpecialQueue.parts(of: queue.name, labels: configuration.labels).map { part in
            var copy = queue
            copy.name = part
            if part != queue.name { (copy.limits, copy.topics) = (nil, []) }
            return copy
        }
    }

    private static func byName(_ handlers: [Handler]) throws(WorkerError) -> [String: RegisteredHandler] {
        var byName: [String: RegisteredHandler] = [:]
        for handler in handlers {
            try handler.check(handler.options.runLimits)
            let registered = RegisteredHandler(handler)
            for name in handler.names {
                guard byName.updateValue(registered, forKey: name) == nil else {
                    throw WorkerError(message: "two handlers are registered for the job name \(name)")
                }
            }
        }
        return byName
    }

    private static func limits(of queues: [QueueSubscription], _ handlers: [Handler]) -> [LimitTarget: [JobLimit]] {
        var limits: [LimitTarget: [JobLimit]] = [:]
        for handler in handlers { if let name = handler.names.first { limits[.job(name)] = handler.options.limits } }
        for queue in queues { if let mine = queue.limits { limits[.queue(queue.name)] = mine } }
        return limits
    }

    private static func areIndependent(_ needs: Set<SlotNeeds>) -> Bool {
        let resources = needs.flatMap(\.resources.keys)
        return Set(needs.map(\.lane)).count == needs.count && Set(resources).count == resources.count
    }

    private static func checkNeeds(
        _ handlers: [Handler], slots: [LaneKind: Int], lanes: [Lane], resources: [String: Int]
    ) throws(WorkerError) {
        for handler in handlers {
            let most = lanes.last { $0.kind == handler.lane }?.range.upperBound ?? slots[handler.lane] ?? 1
            guard handler.slots <= most else {
                throw WorkerError(
                    message:
                        "\(handler.names[0]) takes \(handler.slots) slots, and the \(handler.lane) lane has \(most)")
            }
            for (name, amount) in handler.resources where amount > resources[name] ?? 0 {
                throw WorkerError(
                    message: "\(handler.names[0]) needs \(amount) of \(name), and the worker has "
                        + "\(resources[name] ?? 0): see Worker.Configuration.resources")
            }
        }
    }

    private static func partitionFinder(
        _ handlers: [String: RegisteredHandler], _ sealing: (any Sealing)?
    ) -> Claim.PartitionFinder {
        return { message in
            guard let handler = handlers[message.jobName], let body = try? message.opened(with: sealing).decodedBody()
            else { return nil }
            return handler.partition(body.arguments)
        }
    }
}
