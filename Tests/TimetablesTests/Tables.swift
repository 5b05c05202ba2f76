import Foundation
import Testing

@testable import Timetables

/// The tables of expected runs: see README.md beside them.
enum Tables {
    static func read<Value: Decodable>(_ name: String, as type: Value.Type = Value.self) throws -> Value {
        let url = try #require(Bundle.module.url(forResource: "Tables/" + name, withExtension: "json"))
        return try JSONDecoder().decode(type, from: Data(contentsOf: url))
    }

    /// `2026-03-29T01:00:00Z`, with seconds or without, with a century or without.
    static func seconds(_ text: String) throws -> Int64 {
        let text = text.utf8.count == 14 ? "20" + text : text
        let parts = text.split(separator: "T")
        let day = try #require(CivilDay(parts[0]))
        let time = try parts[1].split(whereSeparator: { ":Z".contains($0) }).map { try #require(Int($0)) }
        return LocalSeconds(day, secondOfDay: time[0] * 3600 + time[1] * 60 + (time.count > 2 ? time[2] : 0))
    }

    static func date(_ text: String) throws -> Date {
        Date(timeIntervalSince1970: TimeInterval(try seconds(text)))
    }

    static func text(_ date: Date) -> String {
        let seconds = Int64(date.timeIntervalSince1970)
        let second = seconds.secondOfDay
        return
            "\(seconds.civilDay)T\(padded(second / 3600, 2)):\(padded(second / 60 % 60, 2)):\(padded(second % 60, 2))Z"
    }
}

extension Timetable {
    /// Runs after one moment and not after another.
    func runs(after begin: Int64, until end: Int64) throws -> [Int64] {
        var found: [Int64] = []
        let runs = Runs(calendars: [:], zones: .system)
        var time = begin * 1_000_000
        while let next = try runs.next(of: self, after: time), next <= end * 1_000_000 {
            found.append(next / 1_000_000)
            time = next
        }
        return found
    }
}
