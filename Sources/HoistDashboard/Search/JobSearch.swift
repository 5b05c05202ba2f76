import Hoist

/// What is wanted of a list of jobs: what stands in the search field, understood.
///
/// ```
/// state:failed name:mail.* -queue:media worker:enc* since:2h ran:>30s attempt:>1 "connection refused"
/// ```
/// Terms are joined by *and*; `-` before a term means its opposite; words are looked for in names, arguments and errors.
struct JobSearch: Sendable, Hashable {
    enum Term: Sendable, Hashable {
        case state(HistoryState)
        case name(String)
        case queue(String)
        case worker(String)
        case id(String)
        case root(String)
        case parent(String)
        /// Heard of last within so many seconds.
        case since(seconds: Double)
        /// Heard of last longer ago than so many seconds.
        case before(seconds: Double)
        case ran(Comparison, seconds: Double)
        case waited(Comparison, seconds: Double)
        case attempt(Comparison, Int)
        case words(String)
    }

    enum Comparison: String, Sendable, Hashable { case above = ">", below = "<", equal = "=" }

    struct Wish: Sendable, Hashable {
        var term: Term
        var isNegated = false
    }

    var wishes: [Wish] = []

    /// What is wrong with a search, and where.
    struct Mistake: Error, Sendable, Hashable {
        /// For people.
        var message: String
        /// In Unicode scalars from the begin of the text.
        var place: Int
    }

    static let longest = 2048
    static let mostTerms = 64
    static let mostWords = 8
    static let keys = [
        "state", "name", "queue", "worker", "id", "root", "parent", "since", "before", "ran", "waited", "attempt",
    ]

    init() {}

    /// - Parameter text: what stands in the field.
    init(_ text: String) throws(Mistake) {
        guard text.utf8.count <= Self.longest else {
            throw Mistake(message: "a search has at most 2,048 characters", place: 0)
        }
        let scalars = Array(text.unicodeScalars)
        var (index, words) = (0, 0)
        while index < scalars.count {
            if scalars[index].properties.isWhitespace {
                index += 1
                continue
            }
            let start = index
            let isNegated =
                scalars[index] == "-" && index + 1 < scalars.count
                && !scalars[index + 1].properties.isWhitespace
            if isNegated { index += 1 }
            let begin = index
            var key: String?
            var value = ""
            var isQuoted = false
            while index < scalars.count, !scalars[index].properties.isWhitespace {
                if scalars[index] == "\"" {
                    isQuoted = true
                    let quote = index
                    index += 1
                    while index < scalars.count, scalars[index] != "\"" {
                        value.unicodeScalars.append(scalars[index])
                        index += 1
                    }
                    guard index < scalars.count else {
                        throw Mistake(message: "a quotation mark is missing at the end", place: quote)
                    }
                    index += 1
                } else if scalars[index] == ":", key == nil, !isQuoted, Self.keys.contains(value.lowercased()) {
                    key = value.lowercased()
                    value = ""
                    index += 1
                } else {
                    value.unicodeScalars.append(scalars[index])
                    index += 1
                }
            }
            guard wishes.count < Self.mostTerms else {
                throw Mistake(message: "a search has at most 64 terms", place: start)
            }
            let term: Term
            if let key {
                guard !value.isEmpty else {
                    throw Mistake(message: "after \(key): a value is missing", place: begin)
                }
                term = try Self.term(key, value, at: begin)
            } else {
                if !isQuoted, let colon = value.firstIndex(of: ":"), value[..<colon].allSatisfy(\.isLetter),
                    value.index(after: colon) < value.endIndex, !value.hasPrefix("http")
                {
                    throw Mistake(
                        message: "there is no \(value[..<colon]): to search by; there are "
                            + Self.keys.map { $0 + ":" }.joined(separator: " ")
                            + ". Put quotation marks around it to search for the text",
                        place: begin)
                }
                guard value.unicodeScalars.contains(where: JobPageQuery.isPartOfWord) else {
                    throw Mistake(message: "a word to search for has a letter or a digit", place: begin)
                }
                words += 1
                guard words <= Self.mostWords else {
                    throw Mistake(message: "a search has at most 8 words", place: start)
                }
                term = .words(value)
            }
            wishes.append(Wish(term: term, isNegated: isNegated))
        }
    }

    private static func term(_ key: String, _ value: String, at place: Int) throws(Mistake) -> Term {
        switch key {
        case "state":
            guard let state = HistoryState(word: value.lowercased()) else {
                let words = HistoryState.allCases.map(\.word).joined(separator: ", ")
                throw Mistake(message: "there is no state \(value.cut(to: 40)); there are \(words)", place: place)
            }
            return .state(state)
        case "name": return .name(value)
        case "queue": return .queue(value)
        case "worker": return .worker(value)
        case "id": return .id(value)
        case "root": return .root(value)
        case "parent": return .parent(value)
        case "since": return .since(seconds: try seconds(value, key, at: place))
        case "before": return .before(seconds: try seconds(value, key, at: place))
        case "attempt":
            let (comparison, rest) = comparison(value)
            guard let number = Int(rest), (1...1_000_000).contains(number) else {
                throw Mistake(message: "attempt: takes a number, such as attempt:3 or attempt:>1", place: place)
            }
            return .attempt(comparison ?? .equal, number)
        default:
            let (comparison, rest) = comparison(value)
            guard let comparison else {
                throw Mistake(message: "\(key): takes > or < and a time, such as \(key):>30s", place: place)
            }
            let seconds = try seconds(rest, key, at: place)
            return key == "ran" ? .ran(comparison, seconds: seconds) : .waited(comparison, seconds: seconds)
        }
    }

    private static func comparison(_ value: String) -> (Comparison?, Substring) {
        guard let first = value.first, let comparison = Comparison(rawValue: String(first)) else {
            return (nil, value[...])
        }
        return (comparison, value.dropFirst())
    }

    /// - Parameter text: `250ms`, `30s`, `5m`, `2h`, `1d`, `1w`.
    private static func seconds(_ text: some StringProtocol, _ key: String, at place: Int) throws(Mistake) -> Double {
        guard let seconds = TimeSpan.seconds(text) else {
            throw Mistake(
                message: "\(key): takes a time, such as 250ms, 30s, 5m, 2h, 1d or 1w; at most two years", place: place)
        }
        return seconds
    }
}

/// Spans of time as people write them.
enum TimeSpan {
    private static let units = [
        ("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0), ("w", 604_800.0),
    ]

    /// - Returns: nil for what is no span, or is longer than two years.
    static func seconds(_ text: some StringProtocol) -> Double? {
        for (unit, seconds) in units where text.hasSuffix(unit) {
            guard let number = Double(text.dropLast(unit.count)), number.isFinite, number >= 0 else { continue }
            let span = number * seconds
            return span <= 731 * 86_400 ? span : nil
        }
        return nil
    }
}
