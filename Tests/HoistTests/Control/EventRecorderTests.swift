import Foundation
@testable import Hoist
import HoistTesting
import Logging
import Synchronization
import Testing

/// What a worker tells of its jobs, when, and what it leaves out.
@Suite("Events of a worker", .timeLimit(.minutes(3)))
struct EventRecorderTests {
    /// Keeps what is sent, and says how many have heard it.
    private final class Ears: Fanout {
        let frames = Shared<[(key: String, bytes: [UInt8])]>([])
        let listeners: Shared<Int?>
        let isAway = Shared(false)

        init(_ listeners: Int?) { self.listeners = Shared(listeners) }

        func send(_ frame: [UInt8], exchange: String, key: String) async throws -> Int? {
            if isAway.value { throw BackendError(.unavailable, "away") }
            frames.change { $0.append((key, frame)) }
            return listeners.value
        }

        func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame> { AsyncStream { _ in } }

        /// The events so far.
        var events: [FleetEvent] {
            frames.value.filter { $0.key == "task.multi" }.flatMap { (try? FleetEvent.read($0.bytes)) ?? [] }
        }
    }

    private let clock = TestClock()

    private func recorder(
        _ mode: Worker.EventMode = .always, _ limits: EventRecorder.Limits = .init()
    ) -> EventRecorder {
        EventRecorder(node: "a@b", mode: mode, limits: limits, time: LamportClock(), clock: clock)
    }

    private func message(_ id: String) -> Message {
        Message(
            headers: MessageHeaders(task: "job", id: id),
            properties: MessageProperties(routingKey: "default", deliveryTag: id),
            body: MessageBody(arguments: Arguments()).encoded())
    }

    private func delivery(_ id: String) -> Delivery {
        Delivery(
            jobID: id, jobName: "job", queue: "default", payload: .message(message(id)), attempt: 1, lostWorkers: 0,
            token: 1)
    }

    private func received(_ id: String) -> JobEvent {
        JobEvent(.received(delivery(id)), delivery(id), worker: "a@b", at: clock.now)
    }

    private func ended(_ id: String, _ outcome: Outcome) -> JobEvent {
        var end = JobEvent.End(outcome: outcome, startedAt: clock.now, runTime: .milliseconds(5))
        end.facts = SettlementFacts(message(id), of: delivery(id), worker: "a@b")
        return JobEvent(.ended(end), delivery(id), worker: "a@b", at: clock.now)
    }

    private let failure = Outcome.failed(JobFailure(kind: .raised, type: "E", message: "no"))
    private let success = Outcome.succeeded(output: Array("1".utf8), retention: nil)

    @Test("events are off until somebody asks for them, and again when told so; the ends are counted all the same")
    func whenAsked() async {
        let (recorder, ears) = (recorder(.whenAsked), Ears(1))
        func pass() async {
            recorder.tell(received("1"))
            recorder.tell(ended("1", success))
            _ = await recorder.flush(on: ears)
        }
        #expect(recorder.interests == [.ends])
        await pass()
        #expect(ears.events.isEmpty)
        #expect(recorder.enable() == "task events enabled")
        #expect(recorder.enable() == "task events already enabled")
        #expect(recorder.interests.contains(.received))
        await pass()
        #expect(ears.events.map(\.facts.type) == ["task-received", "task-succeeded"])
        #expect(recorder.disable() == "task events disabled")
        #expect(recorder.disable() == "task events already disabled")
        await pass()
        #expect(ears.events.count == 2)
        #expect(recorder.totals(all: true) == ["job": ["succeeded": 3]])
        #expect(recorder.totals(all: false) == [:])
    }

    @Test("a worker that may never tell says so")
    func never() {
        let recorder = recorder(.never)
        #expect(recorder.enable() == nil)
        #expect(recorder.interests == [.ends])
    }

    @Test("after half a minute without a listener nothing is encoded; a listener wakes it")
    func sleeps() async throws {
        let (recorder, ears) = (recorder(), Ears(0))
        recorder.tell(received("1"))
        _ = await recorder.flush(on: ears)
        #expect(recorder.interests.contains(.received))
        clock.advance(by: .seconds(31))
        recorder.tell(received("2"))
        _ = await recorder.flush(on: ears)
        #expect(recorder.interests == [.ends])
        let before = ears.frames.value.count
        let running = Task { await recorder.run(on: ears) }
        // There is something to tell: one probe, which nobody hears.
        recorder.tell(ended("2", success))
        #expect(await ears.frames.wait { $0.count == before + 1 })
        #expect(recorder.interests == [.ends])
        ears.listeners.change { $0 = 1 }
        recorder.tell(ended("3", success))
        let wakes = try await eventually {
            clock.advance(by: .seconds(1))
            return recorder.interests.contains(.received)
        }
        #expect(wakes)
        recorder.tell(received("4"))
        let tells = try await eventually {
            clock.advance(by: .milliseconds(50))
            return ears.events.contains { $0.job?.id == "4" }
        }
        #expect(tells)
        running.cancel()
        await running.value
    }

    @Test("where nobody can tell how many listen, a request for events holds for two minutes")
    func uncounted() async {
        let (recorder, ears) = (recorder(.whenAsked), Ears(nil))
        _ = recorder.enable()
        recorder.tell(received("1"))
        _ = await recorder.flush(on: ears)
        #expect(recorder.interests.contains(.received))
        clock.advance(by: .seconds(121))
        recorder.tell(received("2"))
        _ = await recorder.flush(on: ears)
        #expect(recorder.interests == [.ends])
    }

    @Test("above the limit whole jobs are left out, but none that fails")
    func wholeJobs() async throws {
        var limits = EventRecorder.Limits()
        limits.eventsPerSecond = 300
        limits.bufferedBytes = 100 << 20
        let (recorder, ears) = (recorder(.always, limits), Ears(1))
        var failed: Set<String> = []
        for second in 0..<5 {
            for number in 0..<1000 {
                let id = "\(second)-\(number)"
                recorder.tell(received(id))
                let fails = number.isMultiple(of: 100)
                if fails { failed.insert(id) }
                recorder.tell(ended(id, fails ? failure : success))
            }
            clock.advance(by: .seconds(1))
        }
        _ = await recorder.flush(on: ears)
        var types: [String: [String]] = [:]
        for event in ears.events { types[event.job?.id ?? "", default: []].append(event.facts.type) }
        #expect(types.values.allSatisfy { $0.first == "task-received" && $0.count == 2 }, "each as a whole")
        #expect(failed.allSatisfy { types[$0] == ["task-received", "task-failed"] }, "each failure")
        let succeeded = types.values.count { $0.last == "task-succeeded" }
        #expect((5 * 50...5 * 110).contains(succeeded), "\(succeeded) of 5,000")
        let told = types.values.reduce(0) { $0 + $1.count }
        // Of a failure that was left out at first both events are told after all.
        #expect((10_000 - told...10_000 - told + failed.count).contains(recorder.dropped), "\(recorder.dropped)")
        #expect(recorder.totals(all: true) == ["job": ["failed": 50, "succeeded": 4950]], "the totals stay exact")
    }

    @Test("while the broker is away a megabyte is kept, and what is left out is counted")
    func away() async {
        let (recorder, ears) = (recorder(), Ears(1))
        ears.isAway.change { $0 = true }
        for number in 0..<10_000 {
            recorder.tell(received("\(number)"))
            recorder.tell(ended("\(number)", success))
        }
        #expect(await recorder.flush(on: ears) == false)
        #expect(recorder.dropped > 10_000)
        ears.isAway.change { $0 = false }
        #expect(await recorder.flush(on: ears))
        let count = ears.events.count
        #expect((1000...4200).contains(count), "\(count) events in a megabyte")
        #expect(recorder.dropped + count == 20_000)
        #expect(ears.frames.value.allSatisfy { $0.bytes.count <= 100_000 }, "no message is large")
    }

    @Test("events say what Celery's monitors read")
    func members() async throws {
        let (recorder, ears) = (recorder(), Ears(1))
        recorder.tell(received("1"))
        recorder.tell(ended("1", .retry(at: clock.now, JobFailure(kind: .raised, type: "E", message: "no"))))
        recorder.tell(ended("2", .cancelled))
        recorder.tell(ended("3", .expired))
        recorder.tell(
            JobEvent(
                .progressed(JobProgress(fraction: 0.5, message: "half")), delivery("4"), worker: "a@b", at: clock.now))
        recorder.tell(ended("5", .snoozed(until: clock.now)))
        _ = await recorder.flush(on: ears)
        let events = ears.events
        #expect(
            events.map(\.facts.type) == [
                "task-received", "task-retried", "task-revoked", "task-revoked", "hoist-progress", "hoist-snoozed",
            ])
        #expect(events.allSatisfy { $0.facts.node == "a@b" && $0.facts.fields["utcoffset"] == nil })
        let clocks = events.compactMap(\.facts.clock)
        #expect(clocks == clocks.sorted() && Set(clocks).count == 6, "each has a time of its own")
        let received = try #require(events[0].job)
        #expect(received.name == "job" && received.queue == "default" && received.retries == 0)
        #expect(received.rootID == "1" && received.positionalText == "()")
        #expect(events[1].job?.exception == "E('no')")
        #expect(events[2].job?.isTerminated == true && events[2].job?.isExpired == false && events[2].job?.signal == 15)
        #expect(events[3].job?.isTerminated == false && events[3].job?.isExpired == true)
        #expect(events[4].job?.progress?.fraction == 0.5)
    }

    @Test("a program tells of the jobs that it enqueues, and a bulk comes as an array")
    func clientEvents() async throws {
        let backend = MemoryBackend()
        let told = try ClientEvents(backend)
        let silent = Logger(label: "events") { _ in SwiftLogNoOpLogHandler() }
        var configuration = JobClient.Configuration()
        configuration.sinks = [told]
        let jobs = JobClient(backend, configuration: configuration, logger: silent)
        let frames = Shared<[FanoutFrame]>([])
        let stream = try await backend.frames(exchange: "celeryev", pattern: "#")
        let hearing = Task { for await frame in stream { frames.change { $0.append(frame) } } }
        // Told once all are there: how many come in one message then depends on no machine.
        for number in 0..<100 { try await jobs.enqueue(named: "job", options: [.id("\(number)"), .queue("media")]) }
        let running = Task { try await told.run() }
        func events() -> [FleetEvent] { frames.value.flatMap { (try? FleetEvent.read($0.bytes)) ?? [] } }
        #expect(try await eventually { events().count == 100 })
        #expect(frames.value.count < 50, "many in one message")
        let sent = try #require(events().first?.job)
        #expect(sent.facts.type == "task-sent" && sent.name == "job" && sent.queue == "media")
        #expect(sent.node.hasPrefix("gen"))
        running.cancel()
        try await running.value
        hearing.cancel()
    }

    @Test("what is no event of Celery's is told in a group of its own, and read as it was")
    func ownEvents() async throws {
        let (recorder, ears) = (recorder(), Ears(1))
        let line = JobLog.Line(time: clock.now, source: "output", text: "frame 1 \u{1b}[31m")
        func event(_ kind: JobEvent.Kind) -> JobEvent { JobEvent(kind, delivery("1"), worker: "a@b", at: clock.now) }
        recorder.tell(event(.wrote([line])))
        recorder.tell(event(.takenOver(lostWorker: "c@d")))
        recorder.tell(event(.cancelAsked(.requested)))
        recorder.tell(ended("1", .snoozed(until: clock.now)))
        recorder.tell(ended("1", .handedBack))
        _ = await recorder.flush(on: ears)
        let events = ears.events
        #expect(
            events.map(\.facts.type) == [
                "hoist-log", "hoist-taken-over", "hoist-cancel", "hoist-snoozed", "hoist-returned",
            ])
        #expect(events.allSatisfy { $0.job?.id == "1" })
        #expect(events[0].job?.lines.map(\.text) == [line.text] && events[0].job?.lines.first?.source == "output")
        #expect(events[1].job?.lostWorker == "c@d" && events[1].job?.name == "job")
        #expect(events[2].job?.cancelResult == "requested")
        let returned = events[3...].allSatisfy { event in if case .returned = event { true } else { false } }
        #expect(returned)
    }
}

extension EventRecorder {
    /// Tells it an event as a worker does.
    fileprivate func tell(_ event: JobEvent) {
        let interest: EventInterests =
            switch event.kind {
            case .received: .received
            case .started: .started
            case .progressed, .wrote: .progress
            case .sent, .cancelAsked: .sent
            case .retried, .putBack, .ended, .givenUp, .takenOver: .ends
            }
        let stream = EventStream([Always(recorder: self)])
        if let end = event.end {
            stream.tellEnd(end.outcome, of: event.jobID, named: event.jobName) { event }
        } else {
            stream.tell(interest, of: event.jobID) { event }
        }
    }

    /// What a recorder is not interested in is told it all the same: the tests look at what it does with it.
    private struct Always: EventSink {
        let recorder: EventRecorder
        var interests: EventInterests { .all }
        func declines(_ interest: EventInterests, of job: JobID) -> Bool { recorder.declines(interest, of: job) }
        func declinesEnd(_ outcome: Outcome, of job: JobID, named name: String) -> Bool {
            recorder.declinesEnd(outcome, of: job, named: name)
        }
        func record(_ event: JobEvent) { recorder.record(event) }
    }
}
