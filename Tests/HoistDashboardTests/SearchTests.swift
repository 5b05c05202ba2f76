@testable import HoistDashboard
import HoistTesting
import Testing

/// What stands in the search field.
@Suite("Searching jobs")
struct SearchTests {
    private static let texts: [(String, [JobSearch.Wish])] = [
        ("", []),
        ("state:failed", [.init(term: .state(.failed))]),
        ("-state:failed", [.init(term: .state(.failed), isNegated: true)]),
        ("STATE:Failed name:mail.*", [.init(term: .state(.failed)), .init(term: .name("mail.*"))]),
        ("queue:\"a b\" worker:x@h", [.init(term: .queue("a b")), .init(term: .worker("x@h"))]),
        ("since:2h before:90s", [.init(term: .since(seconds: 7200)), .init(term: .before(seconds: 90))]),
        ("ran:>250ms", [.init(term: .ran(.above, seconds: 0.25))]),
        ("waited:<1.5m", [.init(term: .waited(.below, seconds: 90))]),
        ("attempt:3 attempt:>1", [.init(term: .attempt(.equal, 3)), .init(term: .attempt(.above, 1))]),
        ("\"connection refused\"", [.init(term: .words("connection refused"))]),
        ("\"name:x\" c-4711", [.init(term: .words("name:x")), .init(term: .words("c-4711"))]),
        ("http://a", [.init(term: .words("http://a"))]),
    ]

    @Test("a text is read as its terms", arguments: texts)
    func readings(text: String, wishes: [JobSearch.Wish]) throws {
        #expect(try JobSearch(text).wishes == wishes)
    }

    private static let wrongTexts: [(String, Int)] = [
        ("state:gone", 0), ("name:a since:soon", 7), ("ran:30s", 0), ("ran:>30", 0), ("attempt:0", 0),
        ("attempt:>x", 0),
        ("a \"b", 2), ("name:", 0), ("tenant:acme", 0), ("x -since:9999w", 3), ("...", 0),
    ]

    @Test("a mistake is told with its place", arguments: wrongTexts)
    func mistakes(text: String, place: Int) {
        let mistake = #expect(throws: JobSearch.Mistake.self) { try JobSearch(text) }
        #expect(mistake?.place == place, "\(mistake?.message ?? "")")
    }

    @Test("a search has limits")
    func limits() {
        #expect(throws: JobSearch.Mistake.self) { try JobSearch(String(repeating: "a", count: 2049)) }
        #expect(throws: JobSearch.Mistake.self) { try JobSearch(String(repeating: "id:a ", count: 65)) }
        #expect(throws: Never.self) { try JobSearch(String(repeating: "id:a ", count: 64)) }
        #expect(throws: JobSearch.Mistake.self) { try JobSearch(String(repeating: "a ", count: 9)) }
    }

    @Test("what is special to SQLite is not special in a search")
    func escaping() {
        #expect(JobPageQuery.glob("a?[b]*") == "a[?][[]b]*")
        let words = JobPageQuery.match("connection \"refused\" OR xy* z")
        #expect(words == #""connection" AND "refused" AND "OR" AND "xy" AND "z""#)
        #expect(JobPageQuery.match("refu") == #""refu"*"#)
    }
}
