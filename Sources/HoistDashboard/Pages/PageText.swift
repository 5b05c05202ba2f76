import Mustache

/// Escapes text for HTML, scalar by scalar: a mark behind a quote makes one character of both, which a comparison of
/// characters does not find.
struct PageText: MustacheContentType {
    /// The name under which templates ask for it.
    static let name = "HOIST_HTML"

    func escapeText(_ text: String) -> String { Self.escape(text) }

    static func escape(_ text: String) -> String {
        var result = ""
        result.reserveCapacity(text.utf8.count + 16)
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            // Neither HTML nor a person can use it.
            case "\u{0}": result += "\u{FFFD}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
