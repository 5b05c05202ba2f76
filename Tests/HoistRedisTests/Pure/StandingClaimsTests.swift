@testable import HoistRedis
import Testing

/// The machine of claims that wait on the server, event by event, with no server.
@Suite("Standing claims", .timeLimit(.minutes(3)))
struct StandingClaimsTests {
    private typealias Moment = StandingClaims.Moment
    private let start = ContinuousClock.now

    private func begin(_ claims: Box<StandingClaims>, seen: Int) throws -> StandingClaims.Begun {
        let begun = claims.with({ $0.begin(arrivalsSeen: seen, now: start) })
        return try #require(begun)
    }

    /// Claims of one worker that wait: number 1, not carried out yet.
    private func waiting() throws -> Box<StandingClaims> {
        let claims = Box(StandingClaims())
        let begun = try begin(claims, seen: 0)
        claims.with({ $0.note("1.0", begun, now: start) })
        return claims
    }

    @Test("numbers rise with each turn, and name what they take the place of")
    func numbers() throws {
        let claims = Box(StandingClaims())
        let first = try begin(claims, seen: 0)
        #expect(first.number == 1 && first.replaced.isEmpty)
        claims.with({ $0.note("1.0", first, now: start) })
        let second = try begin(claims, seen: 0)
        #expect(second.number == 2 && second.replaced == "1.0")
        // Nothing waits while a turn is under way.
        #expect(!claims.with({ $0.hasAny(arrivalsSeen: 0) }))
    }

    @Test("a moment is two numbers with a point between, and nothing else")
    func moments() {
        #expect(Moment("12.3") == Moment(number: 12, times: 3))
        for text in ["", "1", "1.", ".1", "1.2.3", "a.b", "1,2"] { #expect(Moment(text) == nil, "\(text)") }
        #expect(Moment(number: 1, times: 9) < Moment(number: 2))
        #expect(Moment(number: 2, times: 1) < Moment(number: 2, times: 2))
    }

    @Test("an arrival that the budget does not know stops the next turn")
    func unseen() throws {
        let claims = try waiting()
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "") }) == true)
        #expect(claims.with({ $0.begin(arrivalsSeen: 0, now: start) }) == nil)
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start) }) != nil)
    }

    @Test("answers in another order: the later one first, and the turn waits for the earlier one")
    func outOfOrder() throws {
        let claims = try waiting()
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 2), nowWaiting: "") }) == true)
        // The first of two is still on its way.
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start) }) == nil)
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "1.1") }) == true)
        let begun = try begin(claims, seen: 2)
        #expect(begun.replaced.isEmpty, "the later answer counts: nothing waits")
    }

    @Test("an answer that does not come is given up after a while, and not before")
    func patience() throws {
        let claims = try waiting()
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 2), nowWaiting: "1.2") }) == true)
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start) }) == nil)
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start + .milliseconds(400)) }) == nil)
        #expect(!claims.with({ $0.giveUpOverdue(now: start + .milliseconds(400)) }))
        // What it brought is lost: the worker is told, and claims once it has seen that.
        #expect(claims.with({ $0.giveUpOverdue(now: start + .milliseconds(501)) }))
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start + .milliseconds(501)) }) == nil)
        let begun = claims.with({ $0.begin(arrivalsSeen: 2, now: start + .milliseconds(501)) })
        #expect(begun?.replaced == "", "what waits is not known any more")
        #expect(!claims.with({ $0.giveUpOverdue(now: start + .seconds(9)) }), "nothing is expected any more")
    }

    @Test("claims that were carried out before the turn came: what they replaced stays, and nothing is claimed")
    func carriedOut() throws {
        let claims = try waiting()
        let begun = try begin(claims, seen: 0)
        claims.with({ $0.note("-", begun, now: start) })
        #expect(claims.with({ $0.hasAny(arrivalsSeen: 0) }))
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "") }) == true)
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start) }) != nil)
    }

    @Test("an answer to a turn that comes after what its claims brought changes nothing")
    func lateAnswer() throws {
        let claims = Box(StandingClaims())
        let begun = try begin(claims, seen: 0)
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "1.1") }) == true)
        claims.with({ $0.note("1.0", begun, now: start) })
        let next = try begin(claims, seen: 1)
        #expect(next.replaced == "1.1")
    }

    @Test("what was given back does not count when it arrives")
    func invalidated() throws {
        let claims = try waiting()
        #expect(claims.with({ $0.invalidate(arrivalsSeen: 0) }))
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "1.1") }) == false)
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start) })?.replaced == "")
    }

    @Test("nothing is given back while an arrival has not been seen")
    func invalidateTooEarly() throws {
        let claims = try waiting()
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "") }) == true)
        #expect(!claims.with({ $0.invalidate(arrivalsSeen: 0) }))
        #expect(claims.with({ $0.invalidate(arrivalsSeen: 1) }))
    }

    @Test("claims that are taken back: known version, and whether something came since")
    func withdrawn() throws {
        let never = Box(StandingClaims())
        #expect(never.with({ $0.withdraw() }) == nil)
        let claims = try waiting()
        let taken = claims.with({ $0.withdraw() })
        let withdrawn = try #require(taken)
        #expect(withdrawn.version == "1.0" && !claims.with({ $0.hasDelivered(since: withdrawn) }))
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "") }) == true)
        #expect(claims.with({ $0.hasDelivered(since: withdrawn) }))
    }

    @Test("after the worker has left nothing begins, arrives or fails")
    func ended() throws {
        let claims = try waiting()
        claims.with({ $0.end() })
        #expect(claims.with({ $0.begin(arrivalsSeen: 0, now: start) }) == nil)
        #expect(claims.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "") }) == nil)
        #expect(!claims.with({ $0.fail() }))
    }

    @Test("a loss counts as an arrival, and only where claims were made")
    func losses() throws {
        let never = Box(StandingClaims())
        #expect(!never.with({ $0.fail() }))
        #expect(never.with({ $0.claimed(Moment(number: 1, times: 1), nowWaiting: "") }) == nil)
        let claims = try waiting()
        #expect(claims.with({ $0.fail() }))
        #expect(claims.with({ $0.begin(arrivalsSeen: 0, now: start) }) == nil)
        #expect(claims.with({ $0.begin(arrivalsSeen: 1, now: start) })?.epoch == 1)
    }

    @Test("each loss begins an epoch, which claims are made in")
    func epochs() throws {
        let claims = try waiting()
        #expect(claims.with({ $0.epoch }) == 0)
        for epoch in 1...3 {
            #expect(claims.with({ $0.fail() }))
            #expect(try begin(claims, seen: epoch).epoch == Int64(epoch))
        }
    }
}
