import Endpoints

extension RESPConfiguration {
    /// Reads a URL.
    ///
    /// | form | meaning |
    /// |---|---|
    /// | `redis://[user:password@]host[:6379][/db]` | a server; `valkey://` is the same |
    /// | `rediss://…?ssl_cert_reqs=required&ssl_ca_certs=FILE&ssl_certfile=FILE&ssl_keyfile=FILE&ssl_check_hostname=true` | over TLS |
    /// | `unix:///path/to.sock?db=0`, `redis+socket:///path/to.sock?virtual_host=0` | a Unix socket |
    /// | `redis://one/0;redis://two/0` | the first that answers |
    /// | `sentinel://[:password@]one:26379/0;sentinel://two:26379?master_name=mymaster` | the primary that sentinels name |
    /// | `redis+cluster://one:6379;redis+cluster://two:6379`, `rediss+cluster://…` | a cluster |
    ///
    /// User, password and file names may be percent-encoded. With several URLs, credentials, database and each option
    /// come from the first URL that has them.
    /// - Parameter url: a URL of one of these forms.
    /// - Throws: ``RESPError`` `.invalidURL`, with what is wrong, never the URL itself: it may hold a password.
    public init(url: String) throws(RESPError) {
        var addresses: [ServerAddress] = []
        var parts: [Part] = []
        for text in url.split(separator: ";") {
            let part = try Part(String(text), inheriting: parts.first?.scheme)
            parts.append(part)
            addresses.append(part.address)
        }
        guard let first = parts.first else { throw RESPError(.invalidURL, "the URL is empty") }
        let options = parts.reduce(into: [String: String]()) { $0.merge($1.options) { first, _ in first } }
        let topology: Topology
        switch first.scheme {
        case .sentinel:
            guard let name = options["master_name"], !name.isEmpty else {
                throw RESPError(.invalidURL, "a sentinel:// URL needs the name of the primary: add ?master_name=NAME")
            }
            topology = .sentinels(addresses, primary: name)
        case .cluster: topology = .cluster(addresses)
        case .server: topology = .servers(addresses)
        }
        var known = parts.lazy.compactMap(\.credentials).first
        // As redis-py reads a URL, where the path of a socket leaves no other place for them.
        if let password = options["password"] {
            // One word in front of the host is the user, then.
            let user = known.flatMap { $0.username ?? ($0.password.isEmpty ? nil : $0.password) }
            known = Credentials(username: options["username"] ?? user, password: password)
        }
        let credentials = known
        self.init(topology: topology, credentials: { credentials })
        let database = parts.lazy.compactMap(\.database).first ?? options["db"] ?? options["virtual_host"] ?? "0"
        guard let number = Int(database), (0...65535).contains(number) else {
            throw RESPError(.invalidURL, "the database of the URL is not a number")
        }
        guard number == 0 || first.scheme != .cluster else {
            throw RESPError(.invalidURL, "a cluster has only the database 0")
        }
        self.database = number
        self.options = options
        if let password = options["sentinel_password"] {
            sentinelCredentials = Credentials(username: options["sentinel_username"], password: password)
        }
        guard parts.contains(where: \.isTLS) else { return }
        tls = try wrapping { () throws(MalformedURL) in try TLSSettings(options) }
    }

    /// One of the URLs between semicolons.
    private struct Part {
        enum Scheme { case server, sentinel, cluster }

        var scheme: Scheme
        var isTLS: Bool
        var address: ServerAddress
        var credentials: Credentials?
        var database: String?
        var options: [String: String] = [:]

        /// - Parameter inherited: the scheme for a URL that is only `host:port`; nil for the first URL, which must have
        ///   a scheme.
        init(_ text: String, inheriting inherited: Scheme?) throws(RESPError) {
            var rest = Substring(text)
            let schemeName: String
            if let separator = rest.firstRange(of: ":"),
                rest[separator.upperBound...].hasPrefix("//") || rest.hasPrefix("unix:")
            {
                schemeName = rest[..<separator.lowerBound].lowercased()
                rest = rest[separator.upperBound...]
                if rest.hasPrefix("//") { rest = rest.dropFirst(2) }
            } else if inherited != nil {
                schemeName = ""
            } else {
                throw RESPError(.invalidURL, "the URL has no scheme; write redis://HOST")
            }
            isTLS = schemeName.hasPrefix("rediss") || schemeName == "valkeys"
            options = try wrapping { () throws(MalformedURL) in try URLText.takeQuery(from: &rest) }
            switch schemeName {
            case "redis", "rediss", "valkey", "valkeys": scheme = .server
            case "sentinel": scheme = .sentinel
            case "redis+cluster", "rediss+cluster": scheme = .cluster
            case "": scheme = inherited ?? .server
            case "unix", "redis+socket", "socket":
                scheme = .server
                var path = rest
                if !rest.hasPrefix("/"), let at = rest.firstIndex(of: "@") {
                    credentials = try Self.credentials(rest[..<at])
                    path = rest[rest.index(after: at)...]
                }
                guard path.hasPrefix("/") else {
                    throw RESPError(.invalidURL, "the URL of a socket needs an absolute path")
                }
                address = .unix(try Self.decoded(path))
                return
            default: throw RESPError(.invalidURL, "\(schemeName) is no scheme of a Redis server")
            }
            if let slash = rest.firstIndex(of: "/") {
                let path = rest[slash...].drop { $0 == "/" }
                if !path.isEmpty { database = String(path) }
                rest = rest[..<slash]
            }
            if let at = rest.lastIndex(of: "@") {
                credentials = try Self.credentials(rest[..<at])
                rest = rest[rest.index(after: at)...]
            }
            let (authority, defaultPort) = (rest, scheme == .sentinel ? 26379 : 6379)
            address = try wrapping { () throws(MalformedURL) in
                try ServerAddress(authority: authority, defaultPort: defaultPort)
            }
        }

        private static func credentials(_ text: Substring) throws(RESPError) -> Credentials? {
            let pair = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2 else { return text.isEmpty ? nil : Credentials(password: try decoded(text)) }
            return Credentials(username: pair[0].isEmpty ? nil : try decoded(pair[0]), password: try decoded(pair[1]))
        }

        private static func decoded(_ text: Substring) throws(RESPError) -> String {
            try wrapping { () throws(MalformedURL) in try URLText.decoded(text) }
        }
    }
}

private func wrapping<Value>(_ read: () throws(MalformedURL) -> Value) throws(RESPError) -> Value {
    do throws(MalformedURL) { return try read() } catch { throw RESPError(.invalidURL, error.message) }
}
