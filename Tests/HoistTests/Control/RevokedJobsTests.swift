@testable import Hoist
import HoistTesting
import Testing

/// Ids and stamps of revoked jobs, as a worker keeps them.
@Suite("Revoked jobs")
struct RevokedJobsTests {
    @Test("ids are kept for three hours since they were revoked last, and no more than 50,000 of them")
    func ids() {
        let clock = TestClock()
        let revoked = RevokedJobs(clock: clock)
        revoked.insert(["a", "b"])
        clock.advance(by: .seconds(2 * 3600))
        revoked.insert(["a", String(repeating: "x", count: 2000)])
        clock.advance(by: .seconds(2 * 3600))
        #expect(revoked.contains("a") && !revoked.contains("b"))
        #expect(revoked.ids == ["a"])
        revoked.insert((0..<60_000).map { "\($0)" })
        #expect(revoked.ids.count == 50_000 && revoked.contains("59999") && !revoked.contains("a"))
    }

    @Test("stamps are matched with those of a job, and the oldest make room")
    func stamps() {
        let clock = TestClock()
        let revoked = RevokedJobs(clock: clock)
        func headers(_ stamps: WireValue) -> MessageHeaders {
            var headers = MessageHeaders(task: "t", id: "1")
            headers.stamps = stamps
            return headers
        }
        #expect(!revoked.hasStamps)
        revoked.insert(stamps: [
            ("tenant", ["acme", "b"]), ("n", ["7"]), ("long", [String(repeating: "x", count: 5000)]),
        ])
        #expect(revoked.hasStamps)
        #expect(revoked.matches(headers(["tenant": ["acme", "c"]])))
        #expect(revoked.matches(headers(["tenant": "b"])))
        #expect(revoked.matches(headers(["n": 7])), "as text, whatever it was sent as")
        #expect(!revoked.matches(headers(["tenant": "c"])) && !revoked.matches(headers(["other": "acme"])))
        #expect(!revoked.matches(headers([:])) && !revoked.matches(headers(nil)))
        revoked.insert(stamps: [("more", (0..<10_000).map { "\($0)" })])
        #expect(!revoked.matches(headers(["tenant": "acme"])) && revoked.matches(headers(["more": "9999"])))
        clock.advance(by: .seconds(3 * 3600 + 1))
        revoked.insert(stamps: [("last", ["1"])])
        #expect(!revoked.matches(headers(["more": "9999"])) && revoked.matches(headers(["last": "1"])))
    }
}
