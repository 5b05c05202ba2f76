import Logging
import Synchronization

/// Connects a worker with those who watch it and steer it: it tells events, says that the worker is alive, and answers
/// requests. Without a ``Fanout`` there is nobody to hear.
final class RemoteControl: Sendable {
    private let node: String
    private let fanout: (any Fanout)?
    private let configuration: Worker.Configuration
    private let patience: Patience
    private let recorder: EventRecorder
    private let revoked: RevokedJobs
    private let time = LamportClock()
    private let clock: any JobClock
    private let setLimits: @Sendable (RunLimits, String) throws -> Void
    /// No job runs here, and no lease is renewed here.
    private let thread = ThreadExecutor(name: "hoist-control", threadCount: 1)
    /// Where another live worker of the same name was heard.
    private let namesake = Mutex<String?>(nil)

    init(
        node: String, backend: Backend, configuration: Worker.Configuration, patience: Patience,
        setLimits: @escaping @Sendable (RunLimits, String) throws -> Void
    ) {
        self.node = node
        self.configuration = configuration
        self.patience = patience
        self.setLimits = setLimits
        fanout = backend.fanout
        clock = backend.clock
        var limits = EventRecorder.Limits()
        limits.eventsPerSecond = max(1, configuration.eventsPerSecond)
        recorder = EventRecorder(
            node: node, mode: configuration.events, limits: limits, time: time, clock: backend.clock)
        revoked = RevokedJobs(clock: backend.clock)
    }

    /// What the events of the worker's jobs go to.
    var sinks: [any EventSink] { fanout == nil ? [] : [recorder] }

    /// Whether a job that is delivered was revoked.
    var isRevoked: @Sendable (Delivery) -> Bool {
        { [revoked] delivery in
            if revoked.contains(delivery.jobID) { return true }
            guard revoked.hasStamps, let headers = delivery.message?.headers else { return false }
            return revoked.matches(headers)
        }
    }

    /// Why tools may be confused; nil for nothing.
    var confusion: String? { namesake.withLock { $0 } }
    var eventsDropped: Int { recorder.dropped }
    func totals(all: Bool) -> WireValue { recorder.totals(all: all) }

    /// Tells, beats and listens as long as the group runs.
    func start(in parts: inout DiscardingTaskGroup, of engine: WorkerEngine, jobs: JobClient) {
        guard let fanout else { return }
        parts.addTask(executorPreference: thread) { await self.recorder.run(on: fanout) }
        parts.addTask(executorPreference: thread) { await self.beat(on: fanout, of: engine) }
        guard configuration.control != .none else { return }
        let asking = FleetRequest(
            "hello", ["from_node": .string(node), "revoked": []], to: .all, timeout: .seconds(1), time: time,
            clock: clock)
        let panel = ControlPanel(
            node: node, engine: engine, recorder: recorder, revoked: revoked, time: time, jobs: jobs,
            mode: configuration.control, own: configuration.commands, ownTicket: asking.ticket, patience: patience,
            setLimits: setLimits, stop: { engine.inbox.stop($0) })
        parts.addTask(executorPreference: thread) { await panel.run(on: fanout, executor: self.thread) }
        parts.addTask(executorPreference: thread) { await self.meet(on: fanout, asking) }
        parts.addTask(executorPreference: thread) { await self.acknowledgeElections(on: fanout) }
    }

    /// Says that the worker is alive, as often as it promises.
    private func beat(on fanout: any Fanout, of engine: WorkerEngine) async {
        var type = WorkerEventType.online
        var beats = 0
        while !Task.isCancelled {
            let pulse = await engine.pulse(all: beats.isMultiple(of: 30))
            do {
                try await recorder.tell(type, pulse, frequency: configuration.heartbeatInterval, on: fanout)
                type = .heartbeat
                beats += 1
            } catch {
                // Whoever counts on it takes the worker for dead until it is back, and then for one that has started.
                type = .online
                beats = 0
            }
            await clock.sleep(for: configuration.heartbeatInterval)
        }
    }

    /// Python's workers elect one of them to do something, and wait until every worker that is alive has said that it
    /// has heard of it. This one never stands for election.
    private func acknowledgeElections(on fanout: any Fanout) async {
        while !Task.isCancelled {
            do {
                for await frame in try await fanout.frames(exchange: FleetEvent.exchange, pattern: "worker.elect") {
                    for event in (try? FleetEvent.read(frame.bytes)) ?? [] {
                        guard let id = event.facts.fields["id"]?.stringValue, id.utf8.count <= 1024 else { continue }
                        time.adjust(event.facts.clock ?? 0)
                        try await recorder.acknowledge(election: id, on: fanout)
                    }
                }
            } catch {}
            // The broker is away, or has ended the stream.
            await clock.sleep(for: .seconds(1))
        }
    }

    /// Sends one heartbeat more.
    func beat(_ pulse: WorkerPulse) async {
        guard let fanout else { return }
        try? await recorder.tell(.heartbeat, pulse, frequency: configuration.heartbeatInterval, on: fanout)
    }

    /// Sends what is still to be told, and that the worker leaves.
    func leave(_ pulse: WorkerPulse) async throws {
        guard let fanout else { return }
        _ = await recorder.flush(on: fanout)
        try await recorder.tell(.offline, pulse, frequency: configuration.heartbeatInterval, on: fanout)
    }

    func close() { thread.close() }

    /// Asks all others which jobs they have heard to be revoked. One that answers under this worker's name is another
    /// worker: this one does not answer itself.
    private func meet(on fanout: any Fanout, _ asking: FleetRequest) async {
        let end = clock.uptime + 3_000_000
        do {
            for try await reply in asking.send(on: fanout, expecting: nil) {
                if reply.node == node {
                    namesake.withLock { $0 = "another worker answers to the name \(node)" }
                    patience.logger.warning(
                        "another live worker has the same name: tools cannot tell the two apart",
                        metadata: ["worker": "\(TerminalText.line(node))"])
                }
                revoked.merge(reply.value["revoked"])
                if clock.uptime > end { break }
            }
        } catch {
            patience.logger.debug("the other workers could not be asked", metadata: ["error": "\(error)"])
        }
    }
}
