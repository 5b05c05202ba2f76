import Foundation
import Testing

@testable import Hoist

/// Whole canvases with chords, played through as Celery's workers ran them: each job ends as captured, in the captured
/// order, and what a Swift worker starts behind it must be what Celery's worker started.
@Suite("Chords of Celery's, played through", .timeLimit(.minutes(3)))
struct ChordReplayTests {
    private static let rules = ContinuationRules(origin: "test@here") { _ in "celery" }
    private static let now = Date(timeIntervalSince1970: 1_795_000_000)

    /// What a canvas came to.
    private struct Replay {
        /// Everything that was published after the client's own messages, in order.
        var published: [Message] = []
        /// Ends of jobs that were never published.
        var ends: [ResultWrite] = []
        var groups = MemoryGroups()
        var closings: [GroupClosing] = []

        mutating func note(_ followUps: FollowUps) {
            var followUps = followUps
            followUps.conclude(
                now: ChordReplayTests.now, plan: { _ in nil },
                open: { groups.open($0, lifetime: 60, now: ChordReplayTests.now) },
                count: { groups.count($0, lifetime: 60, now: ChordReplayTests.now) })
            for closing in followUps.closings { groups.close(closing) }
            published += followUps.messages
            ends += followUps.ends
            closings += followUps.closings
        }
    }

    private static func replay(_ capture: CanvasCapture) throws -> (Replay, [Message]) {
        var replay = Replay()
        let clients = capture.messages.filter { $0.headers.parentID == nil }
        for (group, size) in capture.sizes {
            replay.groups.open(GroupOpening(group, size: size), lifetime: 60, now: now)
        }
        // A worker stores a result after it has published what follows, which may end before that.
        let order = Dictionary(capture.messages.enumerated().map { ($1.id, $0) }) { first, _ in first }
        func place(_ result: WireValue) -> Int { order[result["task_id"]?.stringValue ?? ""] ?? .max }
        for result in capture.results.sorted(by: { place($0) < place($1) }) {
            guard let id = result["task_id"]?.stringValue,
                let message = capture.messages.last(where: { $0.id == id })
            else { continue }
            let finished = FinishedJob(message.headers)
            let continuation = try Continuation(message.decodedBody().embed, message.headers)
            switch result["status"]?.stringValue {
            case "SUCCESS":
                let output = result["result"] ?? .null
                if let followUps = try continuation?.afterSuccess(output, of: finished, rules, now: now) {
                    replay.note(followUps)
                }
            case "FAILURE":
                let error = result["result"] ?? .null
                let arguments = error["exc_message"]?.arrayValue ?? []
                let failure = JobFailure(
                    kind: .raised, type: error["exc_type"]?.stringValue ?? "",
                    message: arguments.first?.stringValue ?? "",
                    arguments: arguments)
                if let followUps = continuation?.afterFailure(failure, of: finished, rules, now: now) {
                    replay.note(followUps)
                }
            case "REVOKED":
                if let followUps = continuation?.afterCancellation(.cancelled, of: finished, rules, now: now) {
                    replay.note(followUps)
                }
            default: break
            }
        }
        return (replay, clients)
    }

    @Test(
        "what follows is what Celery's workers started",
        arguments: [
            "chord_simple", "chord_generator", "chord_header_chains", "chord_nested_in_header",
            "chord_of_chords", "chord_body_chain", "chord_body_group", "chord_body_chord", "chord_body_link",
            "chord_body_fails", "chord_with_empty_members", "chord_header_group", "chain_group_middle",
            "chain_of_three_groups", "chain_of_chords", "link_chord", "chord_countdown", "protocol1_chain_of_groups",
            "chord_duplicate_member", "chord_revoked_member",
            "chord_expired_member", "chord_header_fails", "chord_header_fails_body_chain",
            "chord_two_header_failures", "chord_header_fails_link_error_on_chord", "chord_in_chain_fails",
            "chain_of_chords_first_fails", "chain_step_fails_before_chord", "chord_header_chain_fails_first",
            "chord_header_fails_body_group",
        ])
    func captured(_ name: String) throws {
        let capture = try CanvasCapture(name)
        let (replay, clients) = try Self.replay(capture)
        let known = Set(clients.map(\.id))
        var seen: Set<JobID> = []
        let expected = capture.messages.filter { !known.contains($0.id) && seen.insert($0.id).inserted }
        #expect(CanvasCapture.shapes(replay.published) == CanvasCapture.shapes(expected))
        // What failed without having run, as far as Celery's workers tell of it.
        let unpublished = Set(capture.results.compactMap { $0["task_id"]?.stringValue })
            .subtracting(capture.messages.map(\.id))
        let ended = Set(replay.ends.map(\.record.id))
        #expect(ended.isSuperset(of: unpublished), "\(unpublished.subtracting(ended)) did not end")
    }

    @Test("the failure of a header names the first member that failed")
    func chordError() throws {
        let (replay, _) = try Self.replay(try CanvasCapture("chord_two_header_failures"))
        let capture = try CanvasCapture("chord_two_header_failures")
        let body = try #require(capture.results.first { $0["result"]?["exc_type"]?.stringValue == "ChordError" })
        let end = try #require(replay.ends.first { $0.record.id == body["task_id"]?.stringValue })
        #expect(end.record.failure?.type == "ChordError")
        #expect(end.record.failure?.message == body["result"]?["exc_message"]?.arrayValue?.first?.stringValue)
        #expect(replay.closings.map(\.hasFailed) == [true])
    }

    @Test("a nested chord whose header fails fails the outer one; Celery's waits for ever")
    func nestedFailure() throws {
        let (replay, _) = try Self.replay(try CanvasCapture("chord_nested_inner_fails"))
        #expect(replay.closings.count == 2 && replay.closings.allSatisfy(\.hasFailed))
        #expect(replay.ends.count { $0.record.failure?.type == "ChordError" } == 2)
    }

    @Test("a member that comes a hundred times counts once, before the end and after it")
    func repeated() throws {
        let capture = try CanvasCapture("chord_simple")
        var replay = Replay()
        let members = capture.messages.filter { $0.headers.groupIndex != nil }
        let group = try #require(members.first?.headers.group)
        replay.groups.open(GroupOpening(group, size: members.count), lifetime: 60, now: Self.now)
        for message in [members[0], members[1], members[0], members[1]] {
            let continuation = try #require(try Continuation(message.decodedBody().embed, message.headers))
            for _ in 0..<100 {
                replay.note(
                    try continuation.afterSuccess(1, of: FinishedJob(message.headers), Self.rules, now: Self.now))
            }
        }
        #expect(replay.published.map(\.jobName) == ["wire.tsum"])
    }
}
