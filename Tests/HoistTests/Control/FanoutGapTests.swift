@testable import Hoist
import HoistTesting
import Testing

/// What a listener is told of the frames that it has missed.
@Suite("Gaps in what a listener hears", .timeLimit(.minutes(3)))
struct FanoutGapTests {
    private func frame(_ number: Int) -> FanoutFrame { FanoutFrame(key: "k", bytes: Array(String(number).utf8)) }

    @Test("a listener that falls behind loses the oldest frames, and hears so once")
    func overflow() async {
        let listeners = FanoutListeners()
        let (slow, other) = (
            listeners.listen(exchange: "e", pattern: "#"), listeners.listen(exchange: "other", pattern: "#")
        )
        for number in 0..<10_010 { listeners.hear(frame(number), exchange: "e") }
        listeners.hear(frame(-1), exchange: "other")
        var heard: [FanoutFrame] = []
        for await frame in slow {
            heard.append(frame)
            if heard.count == 10_000 { break }
        }
        #expect(heard.first?.bytes == Array("10".utf8))
        #expect(heard.count { $0.isAfterGap } == 1)
        for await frame in other {
            #expect(!frame.isAfterGap, "only who was slow has missed any")
            break
        }
    }

    @Test("after a gap that the backend knows of, the next frame says so, to each listener of the exchange")
    func known() async {
        let listeners = FanoutListeners()
        let streams = (0..<2).map { _ in listeners.listen(exchange: "e", pattern: "#") }
        listeners.hear(frame(1), exchange: "e")
        listeners.noteGap(exchange: "e")
        listeners.noteGap(exchange: "other")
        for number in 2...3 { listeners.hear(frame(number), exchange: "e") }
        for stream in streams {
            var heard: [Bool] = []
            for await frame in stream {
                heard.append(frame.isAfterGap)
                if heard.count == 3 { break }
            }
            #expect(heard == [false, true, false])
        }
    }

    @Test("the stream of events tells a gap between the events around it")
    func events() async throws {
        let backend = Gappy()
        let fleet = try Fleet(backend)
        var told: [String] = []
        for await event in try await fleet.heardEvents() {
            if case .missed(let begin, let end) = event { #expect(begin <= end) }
            told.append(event.facts.type)
            if told.count == 3 { break }
        }
        #expect(told == ["worker-heartbeat", "hoist-missed", "worker-heartbeat"])
    }

    /// Gives two heartbeats with a gap between.
    private struct Gappy: BackendConvertible, Fanout {
        var backend: Backend {
            var backend = MemoryBackend().backend
            backend.fanout = self
            return backend
        }

        func send(_ frame: [UInt8], exchange: String, key: String) async throws -> Int? { 1 }

        func frames(exchange: String, pattern: String) async throws -> AsyncStream<FanoutFrame> {
            let body = #"{"type": "worker-heartbeat", "hostname": "a@b", "timestamp": 1.0, "clock": 1}"#
            let bytes = ControlFrame.encode(
                headers: [:], body: Array(body.utf8), exchange: exchange, key: "worker.heartbeat", isLasting: false)
            return AsyncStream { continuation in
                for isAfterGap in [false, true] {
                    var frame = FanoutFrame(key: "worker.heartbeat", bytes: bytes)
                    frame.isAfterGap = isAfterGap
                    continuation.yield(frame)
                }
            }
        }
    }
}
