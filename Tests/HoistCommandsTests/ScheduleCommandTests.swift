import HoistTesting
import TestServers
import Testing

@Suite("hoist schedule")
struct ScheduleCommandTests {
    @Test("the next runs in a zone, without a backend")
    func next() async throws {
        let result = try await BuiltProgram.run(
            "hoist",
            [
                "schedule", "next", "30 2 * * *", "--zone", "Europe/Berlin", "--count", "2", "--after",
                "2026-03-28T12:00:00Z",
            ])
        #expect(result.status == 0)
        let lines = result.text.split(separator: "\n").map(String.init)
        #expect(lines.count == 3)
        #expect(lines[0].hasPrefix("at 02:30 every day, Europe/Berlin; on 29 March 2026 at 03:00"))
        #expect(lines[1] == "2026-03-29 03:00:00 +02:00   2026-03-29 01:00:00 +00:00")
        #expect(lines[2] == "2026-03-30 02:30:00 +02:00   2026-03-30 00:30:00 +00:00")
    }

    @Test("flags choose what clock changes do, and how days act together")
    func flags() async throws {
        func first(_ arguments: String...) async throws -> String {
            let text = try await BuiltProgram.run("hoist", ["schedule", "next"] + arguments + ["--count", "1"]).text
            return text.split(separator: "\n").last.map { String($0.prefix(19)) } ?? ""
        }
        let gap = ["30 2 * * *", "--zone", "Europe/Berlin", "--after", "2026-03-28T12:00:00Z"]
        #expect(try await first(gap[0], gap[1], gap[2], gap[3], gap[4], "--skip-gaps") == "2026-03-30 02:30:00")
        #expect(
            try await first(
                "30 2 * * *", "--zone", "Europe/Berlin", "--after", "2026-10-25T00:30:00Z", "--both-times")
                == "2026-10-25 02:30:00")
        #expect(
            try await first("0 0 13 * FRI", "--both-days", "--after", "2026-01-01T00:00:00Z") == "2026-02-13 00:00:00")
    }

    @Test(
        "what is no expression is said, with exit status 64",
        arguments: [
            ["0 0 31 2 *"], ["0 25 * * *"], ["@daily", "--zone", "Europe/Berln"], ["@daily", "--count", "0"],
            ["@daily", "--after", "soon"],
        ])
    func refused(_ arguments: [String]) async throws {
        #expect(try await BuiltProgram.run("hoist", ["schedule", "next"] + arguments).status == 64)
    }
}
