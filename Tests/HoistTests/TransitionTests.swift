import Foundation
import Hoist
import Testing

/// Every end of a delivery with every kind of job: the table that backends store.
@Suite("What becomes of a job", .timeLimit(.minutes(3)))
struct TransitionTests {
    private static let started = Date(timeIntervalSince1970: 1000)
    private static let finished = Date(timeIntervalSince1970: 1007)
    private static let noticed = Date(timeIntervalSince1970: 1020)
    private static let due = Date(timeIntervalSince1970: 1060)
    private static let failure = JobFailure(kind: .raised, type: "Oops", message: "it broke")
    private static let crash = JobFailure(kind: .crashed, type: "Crashed", message: "killed by SIGSEGV")

    enum End: String, CaseIterable {
        case succeeded, succeededForAnHour, succeededIgnored, failed, crashed, retry, retryAfterCrash, snoozed, refused
        case cancelled, expired, handedBack, notStarted, workerLost, neverHeardOf, resigned
    }

    enum Kind: String, CaseIterable { case ordinary, atMostOnce, cancelled, cancelledAtMostOnce, twiceLost }

    /// A transition in a line: the move, then what else it says.
    private static let table: [End: [Kind: String]] = {
        let ends: [End: String] = [
            .succeeded: "end succeeded standard output",
            .succeededForAnHour: "end succeeded seconds(3600.0) output",
            .succeededIgnored: "end succeeded nothing output",
            .failed: "end failed deadLetter history failure",
            .crashed: "end failed deadLetter history failure death",
            .cancelled: "end cancelled standard history",
            .expired: "end expired standard",
        ]
        var table = ends.mapValues { line in Dictionary(uniqueKeysWithValues: Kind.allCases.map { ($0, line) }) }
        func add(_ end: End, _ ordinary: String, atMostOnce: String, cancelled: String, twiceLost: String? = nil) {
            table[end] = [
                .ordinary: ordinary, .atMostOnce: atMostOnce, .cancelled: cancelled, .cancelledAtMostOnce: cancelled,
                .twiceLost: twiceLost ?? ordinary,
            ]
        }
        add(
            .retry, "back retrying later history failure spends",
            atMostOnce: "back retrying later history failure spends",
            cancelled: "end cancelled standard history failure")
        add(
            .retryAfterCrash, "back retrying later history failure death spends",
            atMostOnce: "back retrying later history failure death spends",
            cancelled: "end cancelled standard history failure death")
        add(
            .snoozed, "back scheduled later history", atMostOnce: "back scheduled later history",
            cancelled: "end cancelled standard history")
        add(
            .refused, "back scheduled later history", atMostOnce: "back scheduled later history",
            cancelled: "end cancelled standard history")
        add(
            .handedBack, "back waiting front history", atMostOnce: "end failed deadLetter history failure",
            cancelled: "end cancelled standard history")
        add(
            .notStarted, "back waiting front uncounted", atMostOnce: "back waiting front uncounted",
            cancelled: "end cancelled standard uncounted")
        add(
            .neverHeardOf, "back waiting front uncounted", atMostOnce: "back waiting front uncounted",
            cancelled: "end cancelled standard uncounted")
        add(
            .resigned, "back waiting front", atMostOnce: "end failed deadLetter failure",
            cancelled: "end cancelled standard")
        add(
            .workerLost, "back waiting front history death", atMostOnce: "end failed deadLetter history failure death",
            cancelled: "end cancelled standard history death", twiceLost: "end failed deadLetter history failure death")
        return table
    }()

    @Test("every end with every kind of job", arguments: End.allCases, Kind.allCases)
    func table(_ end: End, _ kind: Kind) throws {
        let transition = Self.transition(end, Self.facts(kind))
        let expected = try #require(Self.table[end]?[kind])
        #expect(Self.line(transition) == expected)
        // Ends count from when the handler ended, or from when the end was noticed.
        if case .end(_, let date, _) = transition.move {
            let isNoticed = [.workerLost, .neverHeardOf, .resigned].contains(end)
            #expect(date == (isNoticed ? Self.noticed : Self.finished))
        }
        if let attempt = transition.attempt {
            #expect(attempt.number == 4 && attempt.worker == "w" && attempt.startedAt == Self.started)
        }
    }

    @Test("a job that falls due meanwhile waits, whatever its state was to be")
    func dueMeanwhile() {
        let transition = Self.transition(.snoozed, Self.facts(.ordinary))
        #expect(transition.state(at: Self.noticed) == .scheduled)
        #expect(transition.state(at: Self.due) == .waiting)
    }

    @Test("a retry takes its change along, and a cancelled one does not")
    func changes() {
        let outcome = Outcome.retry(at: Self.due, Self.failure, change: .arguments(Arguments(keyword: ["n": 5])))
        #expect(Transition(Self.settlement(outcome), of: Self.facts(.ordinary)).change != nil)
        #expect(Transition(Self.settlement(outcome), of: Self.facts(.cancelled)).change == nil)
    }

    private static func facts(_ kind: Kind) -> DeliveryFacts {
        DeliveryFacts(
            attempt: 4, worker: "w", claimedAt: started, lostWorkers: kind == .twiceLost ? 2 : 0,
            isAtMostOnce: kind == .atMostOnce || kind == .cancelledAtMostOnce,
            isCancelRequested: kind == .cancelled || kind == .cancelledAtMostOnce)
    }

    private static func settlement(_ outcome: Outcome) -> Settlement {
        Settlement(jobID: "a", token: 1, outcome: outcome, startedAt: started, finishedAt: finished)
    }

    private static func transition(_ end: End, _ facts: DeliveryFacts) -> Transition {
        let output = Array("7".utf8)
        let outcome: Outcome
        switch end {
        case .succeeded: outcome = .succeeded(output: output, retention: nil)
        case .succeededForAnHour: outcome = .succeeded(output: output, retention: 3600)
        case .succeededIgnored: outcome = .succeeded(output: output, retention: 0)
        case .failed: outcome = .failed(failure)
        case .crashed: outcome = .failed(crash)
        case .retry: outcome = .retry(at: due, failure)
        case .retryAfterCrash: outcome = .retry(at: due, crash)
        case .snoozed: outcome = .snoozed(until: due)
        case .refused: outcome = .refused(until: due, failure)
        case .cancelled: outcome = .cancelled
        case .expired: outcome = .expired
        case .handedBack: outcome = .handedBack
        case .notStarted: outcome = .notStarted
        case .workerLost: return .workerLost(facts, worker: "w", maximum: 3, at: noticed)
        case .neverHeardOf: return .neverBegun(facts, at: noticed)
        case .resigned: return .resigned(facts, at: noticed)
        }
        return Transition(settlement(outcome), of: facts)
    }

    private static func line(_ transition: Transition) -> String {
        var words: [String]
        switch transition.move {
        case .end(let state, _, let kept): words = ["end", state.rawValue, "\(kept)"]
        case .back(let state, let due, let inFront):
            words = ["back", state.rawValue]
            if due != nil { words.append("later") }
            if inFront { words.append("front") }
        }
        if transition.attempt != nil { words.append("history") }
        if transition.failure != nil { words.append("failure") }
        if transition.output != nil { words.append("output") }
        if transition.countsDeath { words.append("death") }
        if transition.spendsAttempt { words.append("spends") }
        if !transition.countsStart { words.append("uncounted") }
        return words.joined(separator: " ")
    }
}
