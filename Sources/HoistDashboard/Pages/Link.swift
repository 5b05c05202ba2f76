import Foundation
import Hoist

/// Makes addresses of the dashboard's own pages. What comes from outside is percent-encoded.
struct Links: Sendable {
    /// Where the dashboard is mounted: empty, or `/hoist`.
    var base: String
    var backend: String
    /// Several backends are shown: links name the one.
    var isNamed: Bool
    var range: ChartRange

    func path(_ path: String, _ query: [(String, String)] = []) -> String {
        var items = query
        if isNamed { items.append(("backend", backend)) }
        if range != .quarterHour { items.append(("range", range.rawValue)) }
        let text = items.map { Self.encode($0.0) + "=" + Self.encode($0.1) }.joined(separator: "&")
        return base + path + (text.isEmpty ? "" : "?" + text)
    }

    func job(_ id: JobID) -> String { path("/jobs/" + Self.encode(id)) }
    func queue(_ name: String) -> String { path("/queues/" + Self.encode(name)) }
    func worker(_ name: String) -> String { path("/workers/" + Self.encode(name)) }
    func jobs(_ search: String) -> String { path("/jobs", search.isEmpty ? [] : [("q", search)]) }

    /// A term of a search for this text. A `*` in it stands for any text there.
    static func term(_ key: String, _ value: String) -> String {
        let isPlain = value.utf8.allSatisfy { byte in
            byte >= 0x30 && byte <= 0x39 || byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7A || byte == UInt8(ascii: ".")
                || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "@")
        }
        guard !value.isEmpty else { return "" }
        return key + ":" + (isPlain ? value : "\"" + value.replacing("\"", with: "*") + "\"")
    }

    /// All but unreserved characters of RFC 3986 are encoded.
    static func encode(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: unreserved) ?? ""
    }

    private static let unreserved = CharacterSet(
        charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
}
