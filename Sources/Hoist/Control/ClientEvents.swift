public import ServiceLifecycle

/// Tells monitors which jobs this program enqueues: Celery's `task-sent`.
///
/// ```swift
/// let told = try ClientEvents(backend)
/// var configuration = JobClient.Configuration()
/// configuration.sinks = [told]
/// let jobs = JobClient(backend, configuration: configuration, logger: logger)
/// // and among the services of the program: told
/// ```
/// An event is kept in memory once the broker has the job, and sent while the service runs, many in one message: it can
/// neither fail nor slow an enqueue. While nobody listens nothing is sent, and above 10,000 a second events are left
/// out.
public final class ClientEvents: EventSink, Service {
    private let recorder: EventRecorder
    private let fanout: any Fanout

    /// - Throws: ``BackendError`` `.misuse` where the backend has no ``Fanout``.
    public init(_ backend: some BackendConvertible) throws {
        let backend = backend.backend
        guard let fanout = backend.fanout else {
            throw BackendError(.misuse, "this backend does not carry events")
        }
        self.fanout = fanout
        recorder = EventRecorder(node: NodeName.client, mode: .always, time: LamportClock(), clock: backend.clock)
    }

    public var interests: EventInterests { [.sent] }

    public func record(_ event: JobEvent) { recorder.record(event) }

    /// Events that were left out so far.
    public var dropped: Int { recorder.dropped }

    /// Sends until a graceful shutdown or until the task is cancelled, and then what is left.
    public func run() async throws {
        await cancelWhenGracefulShutdown {
            await withTaskExecutorPreference(sideThread) { await self.recorder.run(on: self.fanout) }
        }
        // In a task of its own, for this one may be cancelled.
        await Task(executorPreference: sideThread) { [recorder, fanout] in _ = await recorder.flush(on: fanout) }.value
    }
}
