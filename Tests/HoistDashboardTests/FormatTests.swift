import Foundation
import Hoist
@testable import HoistDashboard
import HoistTesting
import Testing

/// How numbers, times, links and names are written.
@Suite("Writing for people")
struct FormatTests {
    private static let thin = "\u{2009}"

    @Test(
        "counts have their thousands apart",
        arguments: [(0, "0"), (7, "7"), (999, "999"), (1000, "1,000"), (1_204_000, "1,204,000"), (-1500, "−1,500")])
    func counts(number: Int, text: String) {
        #expect(Format.count(number) == text)
    }

    @Test(
        "spans are short",
        arguments: [
            (0.0, "0 ms"), (0.0004, "0 ms"), (0.0034, "3.4 ms"), (0.038, "38 ms"), (0.9994, "999 ms"), (1.0, "1 s"),
            (3.24, "3.2 s"), (59.94, "59.9 s"), (60.0, "1 min"), (840.0, "14 min"), (5399.0, "90 min"),
            (7200.0, "2 h"), (172_800.0, "2 d"), (-3.0, "3 s"),
        ])
    func spans(seconds: Double, text: String) {
        #expect(Format.span(seconds).text == text.replacing(" ", with: Self.thin))
    }

    @Test("what is no span is a dash, and any number is written", arguments: [Double.nan, .infinity, -.infinity])
    func noSpans(seconds: Double) {
        #expect(Format.span(seconds).text == "–")
        #expect(Format.span(nil).text == "–")
        #expect(!Format.span(1e300).text.isEmpty && !Format.span(-1e300).text.isEmpty)
        #expect(Format.decimal(seconds, digits: 2) == "–")
    }

    @Test(
        "decimals have no zeros at their end",
        arguments: [
            (1.0, 2, "1"), (1.5, 2, "1.5"), (1.25, 2, "1.25"), (0.05, 2, "0.05"), (-2.5, 1, "−2.5"),
            (1234.5, 1, "1,234.5"),
        ])
    func decimals(value: Double, digits: Int, text: String) {
        #expect(Format.decimal(value, digits: digits) == text)
    }

    @Test("one in a million is not none")
    func shares() {
        #expect(Format.share(1, of: 1_000_000).number == "<0.1")
        #expect(Format.share(0, of: 100).text == "0" + Self.thin + "%")
        #expect(Format.share(41, of: 1000).number == "4.1" && Format.share(1, of: 2).number == "50")
        #expect(Format.share(1, of: 0).text == "–")
        #expect(Format.bounded(10_001) == "10,000+" && Format.bounded(10_000) == "10,000")
        #expect(Format.bytes(999).number == "999" && Format.bytes(2_100_000_000).text == "2.1" + Self.thin + "GB")
    }

    @Test("times are relative, in both directions")
    func relative() {
        let now = Date(timeIntervalSince1970: 1_800_000_000)
        func text(_ seconds: Double) -> String {
            Format.relative(now.addingTimeInterval(seconds), to: now).replacing(Self.thin, with: " ")
        }
        #expect(text(0.5) == "now" && text(-0.5) == "now")
        #expect(text(-12.7) == "12 s ago" && text(180) == "in 3 min" && text(-7200) == "2 h ago")
        #expect(Moment(now, now).exact == "2027-01-15T08:00:00+00:00")
    }

    @Test("ids are cut in their middle")
    func ids() {
        #expect(Format.shortID("video-42") == "video-42")
        #expect(Format.shortID("01a22b49-845e-737a-971e-23852b5b33fe") == "01a22b49…5b33fe")
    }

    @Test("links hold whatever a name holds")
    func links() {
        let links = Links(base: "/hoist", backend: "a&b", isNamed: true, range: .day)
        #expect(links.job("a/b?c#d e%") == "/hoist/jobs/a%2Fb%3Fc%23d%20e%25?backend=a%26b&range=1d")
        #expect(Links(base: "", backend: "x", isNamed: false, range: .quarterHour).queue("ü") == "/queues/%C3%BC")
        #expect(Links.term("name", "mail.send") == "name:mail.send")
        #expect(Links.term("name", "two words") == "name:\"two words\"" && Links.term("name", "") == "")
    }

    @Test("a link to a search for a name is understood as that search")
    func terms() throws {
        for name in ["mail.send", "two words", "a:b", "-x", "ü", "a\tb"] {
            let search = try JobSearch(Links.term("name", name))
            #expect(search.wishes == [.init(term: .name(name))], "\(name)")
        }
    }

    @Test("addresses of pages are read as pages, and nothing else is")
    func addresses() {
        #expect(PageAddress([], [:]) == .overview)
        #expect(PageAddress(["jobs"], ["q": "a", "before": "7"]) == .jobs(search: "a", before: 7))
        #expect(PageAddress(["jobs", "a/b"], [:]) == .job("a/b"))
        for path in [["nothing"], ["jobs", "a", "b"], ["audit", "x"], [""]] { #expect(PageAddress(path, [:]) == nil) }
        for path in PageAddress.paths {
            #expect(PageAddress(path.split(separator: "/").map(String.init), [:]) != nil, "\(path)")
        }
    }

    @Test("special signs are escaped, scalar by scalar")
    func escaping() {
        #expect(PageText.escape("<a href='x'>\"&</a>") == "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&lt;/a&gt;")
        #expect(PageText.escape("\u{600}<b") == "\u{600}&lt;b")
        #expect(PageText.escape("\"\u{301}") == "&quot;\u{301}")
        #expect(PageText.escape("a\u{0}b") == "a\u{FFFD}b" && PageText.escape("") == "")
    }
}
