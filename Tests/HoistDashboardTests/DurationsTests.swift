@testable import HoistDashboard
import HoistTesting
import Testing

/// Times that are counted by how long they took.
@Suite("Durations")
struct DurationsTests {
    @Test("percentiles are right to two digits")
    func percentiles() throws {
        var durations = Durations()
        for number in 1...1000 { durations.add(Double(number) / 1000) }
        let values = try #require(durations.seconds(at: [50, 95, 99, 100]))
        for (value, expected) in zip(values, [0.5, 0.95, 0.99, 1]) {
            #expect(abs(value - expected) <= expected / 100 + 0.001, "\(value) for \(expected)")
        }
        #expect(durations.count == 1000)
        #expect(Durations().seconds(at: [50]) == nil)
    }

    @Test("what is stored comes back, and merging adds")
    func stored() {
        var (one, two) = (Durations(), Durations())
        for number in 0..<500 {
            one.add(Double(number) * 0.37)
            two.add(Double(number) * 1000)
        }
        var both = one
        both.merge(two)
        #expect(Durations(bytes: both.bytes) == both && both.count == 1000)
        #expect(both.bytes.count < 2000)
    }

    @Test("what is no time is left out, and what is too long is a day")
    func edges() throws {
        var durations = Durations()
        for seconds in [Double.nan, .infinity, -.infinity] { durations.add(seconds) }
        #expect(durations.isEmpty)
        for seconds in [-5.0, 0, 1e300] { durations.add(seconds) }
        let values = try #require(durations.seconds(at: [0, 100]))
        #expect(values[0] == 0.001 && abs(values[1] - 86_400) < 1000)
    }

    @Test("bytes that are no durations do no harm")
    func hostile() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let bytes = (0..<Int.random(in: 0..<40)).map { _ in UInt8.random(in: 0...255, using: &random) }
            _ = Durations(bytes: bytes).seconds(at: [50])
        }
    }
}
