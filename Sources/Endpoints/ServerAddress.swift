/// Where a server listens.
public enum ServerAddress: Sendable, Hashable, CustomStringConvertible {
    case host(String, port: Int)
    /// The path of a Unix socket.
    case unix(String)

    public var description: String {
        switch self {
        case .host(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): path
        }
    }
}

extension ServerAddress {
    /// Reads `host`, `host:port` or `[IPv6]:port`, as URLs have them (RFC 3986 §3.2). An empty host is `localhost`.
    /// - Throws: ``MalformedURL`` for a port that is none.
    package init(authority text: Substring, defaultPort: Int) throws(MalformedURL) {
        var (host, port) = (text, Substring(""))
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            host = text[text.index(after: text.startIndex)..<end]
            port = text[text.index(after: end)...].drop { $0 == ":" }
        } else if let colon = text.lastIndex(of: ":") {
            host = text[..<colon]
            port = text[text.index(after: colon)...]
        }
        guard port.isEmpty || (1...65535).contains(Int(port) ?? 0) else {
            throw MalformedURL("the port of the URL is no port")
        }
        self = .host(host.isEmpty ? "localhost" : String(host), port: Int(port) ?? defaultPort)
    }
}

/// A URL that cannot be read. The message does not show the URL, which may hold a password.
package struct MalformedURL: Error {
    package var message: String

    package init(_ message: String) { self.message = message }
}

/// The parts of a URL that hold text.
package enum URLText {
    /// Undoes percent-encoding (RFC 3986 §2.1).
    package static func decoded(_ text: Substring) throws(MalformedURL) -> String {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let value = UInt8(Substring(rest.prefix(2)), radix: 16), rest.count >= 2 else {
                throw MalformedURL("the URL is wrongly percent-encoded")
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Splits the query (RFC 3986 §3.4) off `text`.
    package static func takeQuery(from text: inout Substring) throws(MalformedURL) -> [String: String] {
        guard let mark = text.firstIndex(of: "?") else { return [:] }
        var options: [String: String] = [:]
        for option in text[text.index(after: mark)...].split(separator: "&") {
            let pair = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            options[String(pair[0])] = try decoded(pair.count > 1 ? pair[1] : "")
        }
        text = text[..<mark]
        return options
    }
}
