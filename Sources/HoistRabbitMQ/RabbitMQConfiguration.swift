extension RabbitMQBackend {
    public struct Configuration: Sendable {
        /// How queues are declared that ``queues`` does not name. As Celery's own by default.
        public var defaultQueue: QueueSettings
        /// How queues are declared, by name.
        public var queues: [String: QueueSettings]
        /// The kind of the queues that hold delayed jobs; quorum by default, as Celery's own.
        public var delayQueues: QueueSettings.Kind
        /// The heartbeat of workers' connections, in whole seconds. A worker that is frozen or cut off loses its jobs
        /// after two to three times as long; a second by default, so that others have them within 5 seconds. A worker
        /// that dies loses its jobs at once.
        public var workerHeartbeat: Duration
        /// How long a job waits that no handler of a worker knows, before it is offered again. 5 seconds by default.
        public var unknownNamePause: Duration
        /// How long dead letters are kept. 90 days by default.
        public var deadLetterRetention: Duration
        /// How many dead letters of a queue are kept at most, the newest. 10,000 by default.
        public var deadLetterLimit: Int

        public init(
            defaultQueue: QueueSettings = QueueSettings(), queues: [String: QueueSettings] = [:],
            delayQueues: QueueSettings.Kind = .quorum, workerHeartbeat: Duration = .seconds(1),
            unknownNamePause: Duration = .seconds(5), deadLetterRetention: Duration = .seconds(90 * 86_400),
            deadLetterLimit: Int = 10_000
        ) {
            self.defaultQueue = defaultQueue
            self.queues = queues
            self.delayQueues = delayQueues
            self.workerHeartbeat = max(.seconds(1), workerHeartbeat)
            self.unknownNamePause = unknownNamePause
            self.deadLetterRetention = deadLetterRetention
            self.deadLetterLimit = max(0, deadLetterLimit)
        }

        func settings(of queue: String) -> QueueSettings { queues[queue] ?? defaultQueue }
    }
}
