import HoistTesting
import Synchronization
import Testing

@testable import Hoist

/// Who is woken when something has changed, with no backend.
@Suite("Following jobs", .timeLimit(.minutes(3)))
struct JobFollowerTests {
    private struct Unreadable: Error {}

    /// The revisions of a made-up backend, and how often they were asked for.
    private final class Source: Sendable {
        private let state = Mutex<(revisions: [JobID: Int64], looks: Int, fails: Bool)>(([:], 0, false))

        var looks: Int { state.withLock { $0.looks } }
        func set(_ id: JobID, _ revision: Int64) { state.withLock { $0.revisions[id] = revision } }
        func fail() { state.withLock { $0.fails = true } }

        func look(_ ids: [JobID]) throws -> [JobID: Int64] {
            try state.withLock { state in
                state.looks += 1
                if state.fails { throw Unreadable() }
                return state.revisions.filter { ids.contains($0.key) }
            }
        }
    }

    private let changes = Doorbell()
    private let source = Source()

    /// The bells of so many jobs.
    private func bells(_ count: Int, of follower: JobFollower) -> [Doorbell] {
        (0..<count).map { number in
            source.set("\(number)", 1)
            return follower.doorbell(of: "\(number)") { [source] in try source.look($0) }
        }
    }

    private func rings(_ bells: [Doorbell]) -> [UInt64] { bells.map(\.mark) }

    @Test("a few are told of every change, with no look at the backend")
    func few() {
        let follower = JobFollower(changes: changes)
        let bells = bells(8, of: follower)
        changes.ring()
        changes.ring()
        #expect(rings(bells) == Array(repeating: 2, count: 8) && source.looks == 0)
    }

    @Test("of many only those are told whose job has changed, with one look for all")
    func many() async throws {
        let follower = JobFollower(changes: changes)
        let bells = bells(20, of: follower)
        changes.ring()
        #expect(try await eventually { rings(bells) == Array(repeating: 1, count: 20) }, "what they saw is not known")
        source.set("7", 2)
        changes.ring()
        #expect(try await eventually { bells[7].mark == 2 })
        #expect(rings(bells).reduce(0, +) == 21 && source.looks == 2)
        changes.ring()
        #expect(try await eventually { source.looks == 3 })
        #expect(rings(bells).reduce(0, +) == 21, "nothing has changed")
    }

    @Test("where the backend cannot tell, everybody looks for himself")
    func unreadable() async throws {
        let follower = JobFollower(changes: changes)
        let bells = bells(20, of: follower)
        source.fail()
        changes.ring()
        #expect(try await eventually { rings(bells) == Array(repeating: 1, count: 20) })
    }

    @Test("two who follow one job share its bell, and nobody is told when all have gone")
    func gone() {
        let follower = JobFollower(changes: changes)
        var first: Doorbell? = follower.doorbell(of: "a") { _ in [:] }
        let second = follower.doorbell(of: "a") { _ in [:] }
        #expect(first === second)
        first = nil
        changes.ring()
        #expect(second.mark == 1)
        weak var left: Doorbell?
        do { left = follower.doorbell(of: "b") { _ in [:] } }
        changes.ring()
        #expect(left == nil, "the follower keeps no bell alive")
    }
}
