#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif
import Synchronization

#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// The time zones that this machine knows, by name: the files that the package `tzdata` brings.
public final class ZoneDatabase: Sendable {
    /// The machine's database: the folder that `TZDIR` names, else `/usr/share/zoneinfo`.
    public static let system = ZoneDatabase(folders: systemFolders)

    private let folders: [String]
    private let read = Mutex<[String: ZoneRules]>([:])
    private static let maximumNameLength = 64

    /// - Parameter folders: where zone files are looked for, in this order.
    public init(folders: [String]) { self.folders = folders }

    private static var systemFolders: [String] {
        let named = getenv("TZDIR").map { [String(cString: $0)] } ?? []
        return named.filter { !$0.isEmpty } + ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/var/db/timezone/zoneinfo"]
    }

    /// Such as `2025b`; nil when there is no database or it does not say.
    public var version: String? {
        for folder in folders {
            if let line = Self.contents(of: folder + "/tzdata.zi", atMost: 64), line.starts(with: "# version ".utf8) {
                return String(decoding: line.dropFirst(10).prefix { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self)
            }
            if let line = Self.contents(of: folder + "/+VERSION", atMost: 64) {
                return String(decoding: line.prefix { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self)
            }
        }
        return nil
    }

    /// What clocks of a zone show at a moment, as `2026-03-29 03:00:00 +02:00`.
    /// - Parameters:
    ///   - date: bounded to the years 1 to 9999.
    ///   - zone: the name of a time zone.
    /// - Throws: ``TimetableError/unknownZone(_:)`` and ``TimetableError/noZoneDatabase(_:)``. The latter is no longer thrown once
    ///   the database is installed.
    public func text(of date: Date, in zone: String) throws(TimetableError) -> String {
        let time = floorDivision(date.boundedMicroseconds, 1_000_000)
        let offset = try rules(of: zone).offset(at: time)
        let local = time + Int64(offset)
        let (second, minutes) = (local.secondOfDay, abs(offset) / 60)
        let clock = [second / 3600, second / 60 % 60, second % 60].map { padded($0, 2) }.joined(separator: ":")
        let sign = offset < 0 ? "-" : "+"
        return "\(local.civilDay) \(clock) \(sign)\(padded(minutes / 60, 2)):\(padded(minutes % 60, 2))"
    }

    /// - Throws: ``TimetableError/unknownZone(_:)`` and ``TimetableError/noZoneDatabase(_:)``. The latter is no longer
    ///   thrown once the database is installed.
    func rules(of zone: String) throws(TimetableError) -> ZoneRules {
        // They need no files.
        if ["UTC", "Etc/UTC", "GMT", "Etc/GMT", "Z"].contains(zone) { return .utc }
        if let rules = read.withLock({ $0[zone] }) { return rules }
        guard isWellFormed(zone) else { throw unknown(zone) }
        guard folders.contains(where: { access($0, R_OK) == 0 }) else {
            throw .noZoneDatabase(
                "this machine has no time zones in \(folders.joined(separator: " or ")): install the package tzdata; UTC needs none"
            )
        }
        for folder in folders {
            guard let bytes = Self.contents(of: folder + "/" + zone, atMost: ZoneFile.maximumBytes + 1) else {
                continue
            }
            guard let rules = ZoneFile.read(bytes) else {
                throw .noZoneDatabase("\(folder)/\(zone) is no zone file: install the package tzdata anew")
            }
            read.withLock { $0[zone] = rules }
            return rules
        }
        throw unknown(zone)
    }

    /// Whether the name can be that of a file in the folder and of no other.
    private func isWellFormed(_ zone: String) -> Bool {
        zone.utf8.count <= Self.maximumNameLength
            && zone.utf8.first.map { $0 | 0x20 >= 0x61 && $0 | 0x20 <= 0x7A } == true
            && zone.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x61...0x7A).contains($0 | 0x20) || "/_+-".utf8.contains($0)
            }
    }

    private func unknown(_ zone: String) -> TimetableError {
        let near = names.map { ($0, Self.distance($0.lowercased(), zone.lowercased().prefix(Self.maximumNameLength))) }
            .filter { $0.1 <= max(2, zone.count / 3) }.sorted { ($0.1, $0.0) < ($1.1, $1.0) }.prefix(3).map(\.0)
        let hint = near.isEmpty ? "names are written as Europe/Berlin" : "spelt alike: " + near.joined(separator: ", ")
        return .unknownZone("\"\(zone)\" is no time zone of this machine's database; \(hint)")
    }

    /// The names that the database lists.
    private var names: [String] {
        for folder in folders {
            for file in ["tzdata.zi", "zone1970.tab", "zone.tab"] {
                guard let bytes = Self.contents(of: folder + "/" + file, atMost: 1 << 20) else { continue }
                let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
                return lines.compactMap { line in
                    if file == "tzdata.zi" {
                        let words = line.split(separator: " ")
                        // Zones and links.
                        if words.count > 1, words[0] == "Z" { return String(words[1]) }
                        return words.count == 3 && words[0] == "L" ? String(words[2]) : nil
                    }
                    let columns = line.split(separator: "\t")
                    return line.hasPrefix("#") || columns.count < 3 ? nil : String(columns[2])
                }
            }
        }
        return []
    }

    /// How many letters must be changed, added or taken away.
    private static func distance(_ a: some StringProtocol, _ b: some StringProtocol) -> Int {
        let (a, b) = (Array(a.utf8), Array(b.utf8))
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                let above = row[j + 1]
                row[j + 1] = min(above + 1, row[j] + 1, diagonal + (x == y ? 0 : 1))
                diagonal = above
            }
        }
        return row[b.count]
    }

    private static func contents(of path: String, atMost limit: Int) -> [UInt8]? {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes: [UInt8] = []
        while bytes.count < limit {
            let part = [UInt8](unsafeUninitializedCapacity: min(65_536, limit - bytes.count)) { buffer, count in
                count = max(0, readBytes(file, buffer))
            }
            if part.isEmpty { break }
            bytes += part
        }
        // A folder reads as nothing.
        return bytes.isEmpty ? nil : bytes
    }

    private static func readBytes(_ file: Int32, _ buffer: UnsafeMutableBufferPointer<UInt8>) -> Int {
        #if canImport(Glibc)
        Glibc.read(file, buffer.baseAddress, buffer.count)
        #elseif canImport(Musl)
        Musl.read(file, buffer.baseAddress, buffer.count)
        #else
        Darwin.read(file, buffer.baseAddress, buffer.count)
        #endif
    }
}
