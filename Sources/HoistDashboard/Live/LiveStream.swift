import Foundation
import HTTPTypes
import Hoist
import Hummingbird
import NIOCore
import ServiceLifecycle
import Synchronization

/// How many live streams are open.
final class StreamCounter: Sendable {
    private let open = Mutex<[String: Int]>([:])
    static let most = 200
    /// Where people log in, one of them leaves room for others.
    static let mostOfOne = 50

    var count: Int { open.withLock { $0.values.reduce(0, +) } }

    /// - Returns: false when there are too many.
    func enter(_ who: Identity) -> Bool {
        open.withLock { open in
            let mine = open[who.name, default: 0]
            guard open.values.reduce(0, +) < Self.most, mine < Self.mostOfOne || who == .thisMachine else {
                return false
            }
            open[who.name] = mine + 1
            return true
        }
    }

    func leave(_ who: Identity) {
        open.withLock { open in
            let left = open[who.name, default: 1] - 1
            open[who.name] = left > 0 ? left : nil
        }
    }
}

extension Dashboard {
    /// A page is composed anew at most so often for one reader.
    private static let liveEvery = Duration.milliseconds(500)
    /// What changes with the time alone is shown at least so often.
    private static let liveAtLeast = Duration.seconds(5)

    /// So many pages may share a stream.
    private static let mostPages = 12

    /// A page that a stream tells of.
    private struct LivePage: Sendable {
        /// As the reader named it.
        var name: String
        var address: PageAddress
        var composer: PageComposer
    }

    /// Server-sent events (HTML Living Standard §9.2): the parts of pages that have changed, until the reader goes away.
    func stream(_ visit: Visit) async throws -> Response {
        let names = try Self.values(of: "of", in: visit.request.uri.query ?? "")
        guard !names.isEmpty, names.count <= Self.mostPages else {
            throw Problem(.badRequest, "The stream needs the address of a page, or of up to 12: ?of=/jobs")
        }
        let pages = try names.map { try page($0, visit) }
        guard streams.enter(visit.identity) else {
            throw Problem(.tooManyRequests, "Too many pages are open. Close some.")
        }
        let place = StreamPlace(streams, visit.identity)
        // Who logs out, or loses the right, sees no more.
        let isStillAllowed: @Sendable () async -> Bool = {
            let identity = try? await self.guarding.admit(
                visit.request.head, peer: visit.peer, mountedAt: visit.mountedAt, right: .read, changes: false,
                at: self.collectors[0].clock.now)
            return identity == visit.identity
        }
        return Response(
            status: .ok, headers: [.contentType: "text/event-stream"],
            body: ResponseBody { writer in
                defer { place.leave() }
                try await visit.request.body.consumeWithCancellationOnInboundClose { _ in
                    for await text in Self.changes(of: pages, while: isStillAllowed).cancelOnGracefulShutdown() {
                        try await writer.write(ByteBuffer(string: text))
                    }
                }
                try await writer.finish(nil)
            })
    }

    private func page(_ name: String, _ visit: Visit) throws -> LivePage {
        guard name.utf8.count <= 8192, name.hasPrefix("/") else {
            throw Problem(.badRequest, "The address of a page begins with /")
        }
        let parts = name.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let components = parts[0].split(separator: "/").map { String($0).removingPercentEncoding ?? "" }
        let query = try parts.count > 1 ? Self.members(parts[1]) : [:]
        guard let address = PageAddress(components, query) else { throw Problem(.notFound, "There is no such page.") }
        return LivePage(name: name, address: address, composer: try composer(query, for: visit))
    }

    /// The events of pages. The stream of a reader who is slow ends: with a new one he gets all parts as they are then.
    private static func changes(
        of pages: [LivePage], while isAllowed: @escaping @Sendable () async -> Bool
    ) -> AsyncStream<String> {
        .fed(bufferingPolicy: .bufferingOldest(32 * pages.count)) { events in
            events.yield("retry: 1000\n\n")
            await withTaskGroup(of: Void.self) { group in
                for page in pages { group.addTask { await follow(page, events) } }
                group.addTask {
                    let clock = SystemJobClock()
                    repeat { await clock.sleep(for: liveAtLeast) } while await isAllowed() && !Task.isCancelled
                }
                // The first that cannot go on ends the stream.
                await group.next()
                group.cancelAll()
            }
        }
    }

    private static func follow(_ page: LivePage, _ events: AsyncStream<String>.Continuation) async {
        let clock = SystemJobClock()
        let bell = page.composer.collector.changes
        var shown: [String: String] = [:]
        while !Task.isCancelled {
            let mark = bell.mark
            let begin = ContinuousClock.now
            var sign = page.composer.sign
            do {
                for fragment in try await page.composer.content(page.address).fragments
                where shown[fragment.id] != fragment.html {
                    let value: WireValue = [
                        "page": .string(page.name), "id": .string(fragment.id), "html": .string(fragment.html),
                    ]
                    let text = "event: fragment\ndata: \(JSONText.shown(value))\n\n"
                    if case .dropped = events.yield(text) { return }
                    shown[fragment.id] = fragment.html
                }
            } catch {
                sign = "the history does not answer"
            }
            // Also a sign of life: a reader that is gone is noticed by it.
            let value: WireValue = ["page": .string(page.name), "text": .string(sign)]
            if case .dropped = events.yield("event: sign\ndata: \(JSONText.shown(value))\n\n") { return }
            // A page that is dear to compose is composed less often.
            let cost = begin.duration(to: .now)
            await clock.sleep(for: max(liveEvery, min(cost * 10, .seconds(30))))
            await bell.wait(after: mark, for: liveAtLeast, clock: clock)
        }
    }
}

/// A place among the streams; it is free again when it is left, or no longer referred to.
private final class StreamPlace: Sendable {
    private let counter: StreamCounter
    private let who: Identity
    private let hasLeft = Atomic(false)

    init(_ counter: StreamCounter, _ who: Identity) { (self.counter, self.who) = (counter, who) }
    deinit { leave() }

    func leave() {
        if !hasLeft.exchange(true, ordering: .relaxed) { counter.leave(who) }
    }
}
