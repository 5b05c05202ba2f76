/// Why a worker does not do what it was asked for.
public struct ControlRefusal: Error, Sendable, CustomStringConvertible {
    public var message: String
    public init(_ message: String) { self.message = message }
    public var description: String { message }
}

/// The arguments of a request, read by name. Every refusal names the command and the argument.
struct ControlArguments: Sendable {
    let command: String
    let values: WireValue.Object

    private func refusal(_ name: String, _ what: String) -> ControlRefusal {
        ControlRefusal("\(command): the argument \(name) \(what)")
    }

    private func value(_ name: String) -> WireValue? {
        guard let value = values[name], !value.isNull else { return Optional.none }
        return value
    }

    func text(_ name: String) throws(ControlRefusal) -> String {
        guard let text = try textIfPresent(name) else { throw refusal(name, "is missing") }
        return text
    }

    func textIfPresent(_ name: String) throws(ControlRefusal) -> String? {
        guard let value = value(name) else { return nil }
        guard let text = value.stringValue else { throw refusal(name, "is no text") }
        guard text.utf8.count <= 1024 else { throw refusal(name, "is longer than 1,024 bytes") }
        return text
    }

    /// A text, or a list of texts.
    func texts(_ name: String) throws(ControlRefusal) -> [String] {
        guard let value = value(name) else { throw refusal(name, "is missing") }
        return try texts(value, name)
    }

    private func texts(_ value: WireValue, _ name: String) throws(ControlRefusal) -> [String] {
        switch value {
        case .string(let text): return [text]
        case .array(let elements):
            var texts: [String] = []
            for element in elements {
                guard let text = MessageHeaders.identifier(element) else {
                    throw refusal(name, "has an element that is no text")
                }
                texts.append(text)
            }
            return texts
        default:
            guard let text = MessageHeaders.identifier(value) else { throw refusal(name, "is no text and no list") }
            return [text]
        }
    }

    func textsIfPresent(_ name: String) throws(ControlRefusal) -> [String] {
        value(name) == nil ? [] : try texts(name)
    }

    func flag(_ name: String) throws(ControlRefusal) -> Bool {
        switch value(name) {
        case nil: return false
        case .bool(let flag)?: return flag
        case .integer(let number)?: return number != 0
        case .string(let text)?:
            switch text.lowercased() {
            case "true", "yes", "on", "1": return true
            case "false", "no", "off", "0", "": return false
            default: break
            }
        default: break
        }
        throw refusal(name, "is neither true nor false")
    }

    func integer(_ name: String, in range: ClosedRange<Int>, default fallback: Int) throws(ControlRefusal) -> Int {
        try integerIfPresent(name, in: range) ?? fallback
    }

    func integerIfPresent(_ name: String, in range: ClosedRange<Int>) throws(ControlRefusal) -> Int? {
        guard let value = value(name) else { return nil }
        guard let number = value.integerValue ?? value.stringValue.flatMap({ Int64($0) }) else {
            throw refusal(name, "is no whole number")
        }
        guard let fitting = Int(exactly: number), range.contains(fitting) else {
            throw refusal(name, "must be from \(range.lowerBound) to \(range.upperBound)")
        }
        return fitting
    }

    /// Seconds; nil for none.
    func secondsIfPresent(_ name: String) throws(ControlRefusal) -> Duration? {
        guard let value = value(name) else { return nil }
        guard let seconds = value.doubleValue ?? value.stringValue.flatMap(Double.init) else {
            throw refusal(name, "is no number of seconds")
        }
        guard seconds.isFinite, seconds >= 0, seconds <= 31_536_000_000 else {
            throw refusal(name, "must be from 0 to 31,536,000,000 seconds")
        }
        return Duration(boundedSeconds: seconds)
    }

    /// An object of texts or lists of texts, or a list of `key=value`.
    func headers(_ name: String) throws(ControlRefusal) -> [(name: String, values: [String])] {
        switch value(name) {
        case .object(let members)?:
            var headers: [(String, [String])] = []
            for (key, value) in members { headers.append((key, try texts(value, name))) }
            return headers
        case .array?, .string?:
            return try texts(name).map { text throws(ControlRefusal) in
                let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard parts.count == 2, !parts[0].isEmpty else {
                    throw refusal(name, "has an element that is not KEY=VALUE")
                }
                return (String(parts[0]), [String(parts[1])])
            }
        case nil: throw refusal(name, "is missing")
        default: throw refusal(name, "is no object and no list")
        }
    }
}
