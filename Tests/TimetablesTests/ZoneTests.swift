import Foundation
import Testing

@testable import Timetables

@Suite("Time zones")
struct ZoneTests {
    @Test("the closing rule of a zone file")
    func closingRules() throws {
        let berlin = try #require(PosixZoneRule("CET-1CEST,M3.5.0,M10.5.0/3"))
        #expect(
            berlin.changes(in: 2040) == [
                .init(at: try Tables.seconds("2040-03-25T01:00:00Z"), offset: 7200),
                .init(at: try Tables.seconds("2040-10-28T01:00:00Z"), offset: 3600),
            ])
        // Names in brackets, times before the day's beginning, days by number.
        let nuuk = try #require(PosixZoneRule("<-02>2<-01>,M3.5.0/-1,M10.5.0/0"))
        #expect(
            nuuk.changes(in: 2026).map(\.at) == [
                try Tables.seconds("2026-03-29T01:00:00Z"), try Tables.seconds("2026-10-25T01:00:00Z"),
            ])
        #expect(PosixZoneRule("IST-5:30")?.standardOffset == 19_800)
        let julian = try #require(PosixZoneRule("AAA0BBB,J60/0,300/0"))
        #expect(
            julian.changes(in: 2028).map(\.at) == [
                try Tables.seconds("2028-03-01T00:00:00Z"), try Tables.seconds("2028-10-26T23:00:00Z"),
            ])
    }

    @Test(
        "what is no such rule",
        arguments: [
            "", "C-1", "CET", "CET-1CEST", "CET-1CEST,M3.5.0", "CET-1CEST,M13.5.0,M10.5.0", "CET-1,M3.5.0,M10.5.0x",
            "<CET-1", "CET-999",
        ])
    func noRules(_ text: String) { #expect(PosixZoneRule(text) == nil) }

    @Test("every zone of the machine can be read, and its years after the last recorded change go on")
    func all() throws {
        let folder = URL(fileURLWithPath: "/usr/share/zoneinfo")
        let table = try String(contentsOf: folder.appendingPathComponent("zone1970.tab"), encoding: .utf8)
        let names = table.split(separator: "\n").filter { !$0.hasPrefix("#") }.map {
            String($0.split(separator: "\t")[2])
        }
        #expect(names.count > 200)
        for name in names { _ = try ZoneDatabase.system.rules(of: name) }
        let berlin = try ZoneDatabase.system.rules(of: "Europe/Berlin")
        #expect(berlin.offset(at: try Tables.seconds("2500-07-01T00:00:00Z")) == 7200)
        #expect(berlin.offset(at: try Tables.seconds("2500-01-01T00:00:00Z")) == 3600)
        #expect(berlin.offset(at: try Tables.seconds("1800-01-01T00:00:00Z")) == 3208)
        #expect(ZoneDatabase.system.version?.hasPrefix("20") == true)
    }

    @Test("a machine without zones, or with broken ones, says what to install; UTC needs none")
    func noDatabase() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("zones-\(UUID().uuidString)")
        let none = ZoneDatabase(folders: [folder.path])
        do throws(TimetableError) {
            try Timetable.cron("0 0 * * *", in: "Europe/Berlin").check(zones: none)
            Issue.record("a zone without files")
        } catch {
            guard case .noZoneDatabase(let text) = error else {
                Issue.record("\(error)")
                return
            }
            #expect(text.contains("tzdata"))
        }
        try Timetable.cron("0 0 * * *").check(zones: none)
        #expect(none.version == nil)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data("TZif2 broken".utf8).write(to: folder.appendingPathComponent("Broken"))
        #expect(throws: TimetableError.self) { try Timetable.cron("0 0 * * *", in: "Broken").check(zones: none) }
    }

    @Test("an old file without 64-bit times is read")
    func oldFile() throws {
        // Version 1: one change, two types.
        var bytes = Array("TZif".utf8) + [0] + [UInt8](repeating: 0, count: 15)
        for count in [0, 0, 0, 1, 2, 8] as [UInt8] { bytes += [0, 0, 0, count] }
        bytes += [0, 0, 0x0E, 0x10] + [1]
        bytes += [0, 0, 0, 0, 0, 0] + [0, 0, 0x0E, 0x10, 0, 4] + Array("AAA\u{0}BBB\u{0}".utf8)
        let rules = try #require(ZoneFile.read(bytes))
        #expect(rules.segment(at: 3600) == .init(start: 3600, end: .max, offset: 3600, offsetBefore: 0))
        #expect(rules.moments(showing: 5000).isEmpty)
        for count in 0..<bytes.count { #expect(ZoneFile.read(Array(bytes.prefix(count))) == nil) }
    }
}
