#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
import Synchronization

/// One request to workers, and its replies.
struct FleetRequest: Sendable {
    private let method: String
    private let arguments: WireValue.Object
    private let target: ControlTarget
    private let timeout: Duration
    private let time: LamportClock
    private let clock: any JobClock
    /// Tells the replies to this request from others.
    let ticket = JobIdentifier.make()

    init(
        _ method: String, _ arguments: WireValue.Object, to target: ControlTarget, timeout: Duration,
        time: LamportClock, clock: any JobClock
    ) {
        self.method = method
        self.arguments = arguments
        self.target = target
        self.timeout = timeout
        self.time = time
        self.clock = clock
    }

    /// Sends the request, and wants no reply.
    func tell(on fanout: any Fanout) async throws {
        let request = ControlRequest(method, arguments, to: target, ticket: nil, replyTo: nil, clock: time.tick())
        _ = try await fanout.send(request.encoded(expires: nil), exchange: ControlRequest.exchange, key: "")
    }

    /// Sends the request. The stream ends when all have answered that are known to listen, and else when no reply came
    /// for the length of the time-out.
    /// - Parameter expecting: the names of those who should answer, where more is known than how many listen.
    func send(
        on fanout: any Fanout, expecting: (@Sendable () async -> Set<String>)?
    ) -> AsyncThrowingStream<ControlReply, any Error> {
        .fed(on: sideThread) { replies in try await ask(on: fanout, expecting: expecting) { replies.yield($0) } }
    }

    private func ask(
        on fanout: any Fanout, expecting: (@Sendable () async -> Set<String>)?, _ pass: (ControlReply) -> Void
    ) async throws {
        let queue = try await fanout.replies(exchange: ControlRequest.replyExchange)
        let request = ControlRequest(
            method, arguments, to: target, ticket: ticket, replyTo: queue.address, clock: time.tick())
        let heard = try await fanout.send(
            request.encoded(expires: clock.now.addingTimeInterval(timeout.inSeconds)),
            exchange: ControlRequest.exchange, key: "")
        if heard == 0 { return }
        var awaited: Set<String>?
        switch target {
        case .nodes(let names): awaited = Set(names)
        case .all: awaited = await expecting?()
        case .pattern(let pattern):
            let glob = GlobPattern(pattern)
            awaited = await expecting?().filter { glob.matches($0) }
        }
        var answered: Set<String> = []
        // How many listen says who should answer only where all are asked.
        let count = target == .all ? heard : nil
        enum Completeness { case open, likely, certain }
        func completeness() -> Completeness {
            if case .nodes = target { return awaited.map { $0.isSubset(of: answered) } ?? false ? .certain : .open }
            guard let awaited, let count, awaited.isSubset(of: answered), answered.count >= count else { return .open }
            // Several workers of one program listen as one: there may be another program, of which no directory knows.
            return count == 1 ? .certain : .likely
        }
        let deadline = ReplyDeadline(clock: clock, timeout: timeout)
        for await frame in deadline.frames(of: queue.frames) {
            guard let reply = try? ControlReply.read(frame), reply.ticket == ticket else { continue }
            time.adjust(reply.clock)
            for one in reply.replies {
                answered.insert(one.node)
                pass(one)
            }
            switch completeness() {
            case .certain: return
            case .likely: deadline.extend(by: min(timeout, .milliseconds(150)))
            case .open: deadline.extend(by: timeout)
            }
        }
    }
}

/// Ends a stream of replies when none came for a while.
private final class ReplyDeadline: Sendable {
    private let clock: any JobClock
    private let timeout: Duration
    private let end: Mutex<Int64>
    /// However many replies come: a worker could answer under ever new names.
    private let last: Int64
    private let bell = Doorbell()

    init(clock: any JobClock, timeout: Duration) {
        self.clock = clock
        self.timeout = timeout
        let begun = clock.uptime
        end = Mutex(begun + timeout.inMicroseconds)
        last = begun + timeout.inMicroseconds.clamped(to: 0...(Int64.max / 64)) * 10
    }

    func extend(by duration: Duration) {
        end.withLock { $0 = min(last, clock.uptime + duration.inMicroseconds) }
        bell.ring()
    }

    func frames(of replies: AsyncStream<[UInt8]>) -> AsyncStream<[UInt8]> {
        .fed(on: sideThread) { frames in
            await untilEitherEnds {
                for await frame in replies { frames.yield(frame) }
            } _: {
                while !Task.isCancelled {
                    let mark = self.bell.mark
                    let left = self.end.withLock { $0 } - self.clock.uptime
                    if left <= 0 { break }
                    await self.bell.wait(after: mark, for: .microseconds(left), clock: self.clock)
                }
            }
        }
    }
}

extension Fanout {
    /// The queues that workers say they consume, Python's among them. For a broker that has no list of its own.
    /// - Throws: as ``send(_:exchange:key:)``; asking again is safe.
    package func consumedQueues(within limit: Duration, clock: any JobClock) async throws -> Set<String> {
        let request = FleetRequest(
            Fleet.Query.activeQueues.name, [:], to: .all, timeout: limit, time: LamportClock(), clock: clock)
        var names: Set<String> = []
        for try await reply in request.send(on: self, expecting: nil) {
            for queue in (reply.value.arrayValue ?? []).prefix(1000) {
                // A name of a queue of RabbitMQ has 255 bytes at most.
                if let name = queue["name"]?.stringValue, name.utf8.count <= 255 { names.insert(name) }
            }
        }
        return names
    }
}
