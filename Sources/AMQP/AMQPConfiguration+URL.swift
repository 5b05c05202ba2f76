import Endpoints

extension AMQPConfiguration {
    /// Reads a URL (RabbitMQ URI Specification).
    ///
    /// | form | meaning |
    /// |---|---|
    /// | `amqp://[user:password@]host[:5672][/vhost]` | a server; without a virtual host `/` |
    /// | `amqps://…[:5671]?cacertfile=FILE&certfile=FILE&keyfile=FILE&verify=verify_peer` | over TLS; kombu's `ssl_…` options as well |
    /// | `amqp://one/x;amqp://two` | the first that answers |
    ///
    /// Options: `heartbeat` (seconds), `connection_timeout` (milliseconds), `channel_max`, `frame_max`,
    /// `auth_mechanism=external`, `name`. User, password, virtual host and options may be percent-encoded: the virtual
    /// host `/` is `%2F`. With several URLs, credentials, virtual host and each option come from the first URL that has
    /// them.
    /// - Parameter url: a URL of one of these forms. `pyamqp://` is the same as `amqp://`.
    /// - Throws: ``AMQPError`` `.invalidURL`, with what is wrong, never the URL itself: it may hold a password.
    public init(url: String) throws(AMQPError) {
        do throws(MalformedURL) {
            try self.init(parsing: url)
        } catch {
            throw AMQPError(.invalidURL, error.message)
        }
    }

    private init(parsing url: String) throws(MalformedURL) {
        var parts: [Part] = []
        for text in url.split(separator: ";") { parts.append(try Part(text, inheriting: parts.first)) }
        guard !parts.isEmpty else { throw MalformedURL("the URL is empty") }
        let options = parts.reduce(into: [String: String]()) { $0.merge($1.options) { first, _ in first } }
        let known = parts.lazy.compactMap(\.authentication).first ?? .plain(user: "guest", password: "guest")
        var authentication = known
        switch options["auth_mechanism"]?.lowercased() {
        case nil, "plain": break
        case "external": authentication = .external
        default: throw MalformedURL("auth_mechanism must be plain or external")
        }
        self.init(servers: parts.map(\.address), authentication: { [authentication] in authentication })
        virtualHost = parts.lazy.compactMap(\.virtualHost).first ?? "/"
        connectionName = options["name"]
        if let seconds = try Self.number("heartbeat", in: options, 0...65_535) { heartbeat = .seconds(seconds) }
        if let milliseconds = try Self.number("connection_timeout", in: options, 1...3_600_000) {
            connectTimeout = .milliseconds(milliseconds)
        }
        if let count = try Self.number("channel_max", in: options, 0...65_535) { channelMaximum = count }
        if let bytes = try Self.number("frame_max", in: options, 4096...(16 << 20)) { frameMaximum = bytes }
        self.options = options
        guard parts[0].isTLS else { return }
        var tls = try TLSSettings(options)
        switch options["verify"] {
        case nil, "verify_peer": break
        case "verify_none": (tls.verifiesCertificate, tls.verifiesHostname) = (false, false)
        default: throw MalformedURL("verify must be verify_peer or verify_none")
        }
        tls.trustedCertificatesFile = options["cacertfile"] ?? tls.trustedCertificatesFile
        tls.certificateFile = options["certfile"] ?? tls.certificateFile
        tls.keyFile = options["keyfile"] ?? tls.keyFile
        self.tls = tls
    }

    private static func number(
        _ name: String, in options: [String: String], _ range: ClosedRange<Int>
    ) throws(MalformedURL) -> Int? {
        guard let text = options[name] else { return nil }
        guard let number = Int(text), range.contains(number) else {
            throw MalformedURL("\(name) must be a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// One of the URLs between semicolons.
    private struct Part {
        var isTLS: Bool
        var address: ServerAddress
        var authentication: Authentication?
        var virtualHost: String?
        var options: [String: String]

        /// - Parameter first: the first URL, whose scheme a URL without one has too; nil for the first itself.
        init(_ text: Substring, inheriting first: Part?) throws(MalformedURL) {
            var rest = text
            if let separator = rest.firstRange(of: "://") {
                switch rest[..<separator.lowerBound].lowercased() {
                case "amqp", "pyamqp": isTLS = false
                case "amqps", "pyamqps": isTLS = true
                case let other: throw MalformedURL("\(other) is no scheme of a RabbitMQ server")
                }
                rest = rest[separator.upperBound...]
            } else if let first {
                isTLS = first.isTLS
            } else {
                throw MalformedURL("the URL has no scheme; write amqp://HOST")
            }
            if let first, first.isTLS != isTLS {
                throw MalformedURL("all servers of one URL must be amqp, or all amqps")
            }
            options = try URLText.takeQuery(from: &rest)
            if let slash = rest.firstIndex(of: "/") {
                let path = rest[rest.index(after: slash)...]
                // Python's programs write amqp://host// for the virtual host "/".
                if !path.isEmpty { virtualHost = try URLText.decoded(path) }
                rest = rest[..<slash]
            }
            if let at = rest.lastIndex(of: "@") {
                let pair = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
                authentication = .plain(
                    user: try URLText.decoded(pair[0]), password: pair.count > 1 ? try URLText.decoded(pair[1]) : "")
                rest = rest[rest.index(after: at)...]
            }
            address = try ServerAddress(authority: rest, defaultPort: isTLS ? 5671 : 5672)
        }
    }
}
