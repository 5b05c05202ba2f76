import Synchronization

/// Which arguments are hidden in every readable text: logs, records, pages. By the job's type, by what a program says,
/// and by names that everywhere mean the same.
package enum SecretNames {
    /// Lower case, without underscores and hyphens.
    private static let usual: Set<String> = [
        "password", "passwd", "pwd", "passphrase", "secret", "clientsecret", "token", "accesstoken", "refreshtoken",
        "idtoken", "apikey", "apitoken", "authorization", "auth", "credentials", "privatekey", "secretkey", "sessionid",
        "cookie", "pin", "cvv", "creditcard", "cardnumber",
    ]

    private static let known = Mutex<[String: Set<String>]>([:])

    private static let usualDigests = Set(usual.map(digest))

    /// FNV-1a of the letters, without their case, underscores and hyphens: every argument of every job passes here.
    private static func digest(_ name: String) -> UInt64 {
        var digest: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.utf8 where byte != UInt8(ascii: "_") && byte != UInt8(ascii: "-") {
            let isUpper = byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z")
            digest = (digest ^ UInt64(isUpper ? byte | 0x20 : byte)) &* 0x100_0000_01B3
        }
        return digest
    }

    package static func isUsual(_ name: String) -> Bool { name.utf8.count <= 40 && usualDigests.contains(digest(name)) }

    /// Remembers what the type of a job says, for jobs of that name that are enqueued without the type.
    package static func note(_ secrets: Set<String>, of jobName: String) {
        guard !secrets.isEmpty else { return }
        known.withLock { $0[jobName] = secrets }
    }

    static func known(of jobName: String) -> Set<String> { known.withLock { $0[jobName] } ?? [] }

    /// Hides secrets in keyword arguments that another producer wrote as text: `{'user': 'x', 'password': 'y'}`.
    package static func hide(in text: String, _ secrets: Set<String>) -> String {
        guard text.contains(where: { $0 == "'" || $0 == "\"" }) else { return text }
        var result = ""
        var rest = Substring(text)
        while let quote = rest.firstIndex(where: { $0 == "'" || $0 == "\"" }) {
            result += rest[..<quote]
            rest = rest[quote...]
            let name = literal(&rest)
            result += name
            // A key: a colon follows it.
            let afterName = rest
            guard rest.first == ":" else { continue }
            let key = String(name.dropFirst().dropLast())
            guard secrets.contains(key) || isUsual(key) else { continue }
            rest = rest.dropFirst()
            let space = rest.prefix { $0 == " " }
            rest = rest.dropFirst(space.count)
            skipValue(&rest)
            result += ":" + space + ArgumentsText.hidden
            if afterName.isEmpty { break }
        }
        return result + rest
    }

    /// Takes a quoted text, with its quotes.
    private static func literal(_ rest: inout Substring) -> String {
        guard let quote = rest.first else { return "" }
        var text = String(rest.removeFirst())
        while let character = rest.popFirst() {
            text.append(character)
            if character == "\\", let escaped = rest.popFirst() {
                text.append(escaped)
            } else if character == quote {
                break
            }
        }
        return text
    }

    /// Skips a value up to the comma or the bracket behind it.
    private static func skipValue(_ rest: inout Substring) {
        var depth = 0
        while let character = rest.first {
            switch character {
            case "'", "\"": _ = literal(&rest)
            case "(", "[", "{":
                depth += 1
                rest.removeFirst()
            case ")", "]", "}":
                if depth == 0 { return }
                depth -= 1
                rest.removeFirst()
            case "," where depth == 0: return
            default: rest.removeFirst()
            }
        }
    }
}
