/// Patterns of Unix shells: `*` for any text, `?` for a character, `[a-z]` and `[!a-z]` for one of some or none of
/// some.
struct GlobPattern: Sendable {
    fileprivate enum Part {
        case any, one
        case literal(Character)
        case some([ClosedRange<Character>], isNegated: Bool)
    }

    private let parts: [Part]

    /// - Parameter hasChoices: whether brackets mean one of some; otherwise they stand for themselves.
    init(_ pattern: String, hasChoices: Bool = true) {
        var parts: [Part] = []
        let text = Array(pattern)
        var index = 0
        while index < text.count {
            switch text[index] {
            case "*":
                if case .any? = parts.last {} else { parts.append(.any) }
            case "?": parts.append(.one)
            case "[" where hasChoices:
                if let (part, end) = Self.choice(text, from: index) {
                    parts.append(part)
                    index = end
                } else {
                    parts.append(.literal("["))
                }
            case let character: parts.append(.literal(character))
            }
            index += 1
        }
        self.parts = parts
    }

    private static func choice(_ text: [Character], from begin: Int) -> (Part, end: Int)? {
        var index = begin + 1
        let isNegated = index < text.count && (text[index] == "!" || text[index] == "^")
        if isNegated { index += 1 }
        let first = index
        var ranges: [ClosedRange<Character>] = []
        while index < text.count, text[index] != "]" || index == first {
            if index + 2 < text.count, text[index + 1] == "-", text[index + 2] != "]" {
                if text[index] <= text[index + 2] { ranges.append(text[index]...text[index + 2]) }
                index += 3
            } else {
                ranges.append(text[index]...text[index])
                index += 1
            }
        }
        return index < text.count ? (.some(ranges, isNegated: isNegated), index) : nil
    }

    func matches(_ text: String) -> Bool {
        let text = Array(text)
        var (part, place) = (0, 0)
        // Behind the last `*`, and how far it reaches so far: time is bounded by the product of both lengths.
        var star: (part: Int, place: Int)?
        while place < text.count {
            if part < parts.count, case .any = parts[part] {
                part += 1
                star = (part, place)
            } else if part < parts.count, parts[part].matches(text[place]) {
                (part, place) = (part + 1, place + 1)
            } else if let last = star {
                (part, place) = (last.part, last.place + 1)
                star = (part, place)
            } else {
                return false
            }
        }
        return parts[part...].allSatisfy { if case .any = $0 { true } else { false } }
    }
}

extension GlobPattern.Part {
    fileprivate func matches(_ character: Character) -> Bool {
        switch self {
        case .any, .one: true
        case .literal(let literal): literal == character
        case .some(let ranges, let isNegated): ranges.contains { $0.contains(character) } != isNegated
        }
    }
}
