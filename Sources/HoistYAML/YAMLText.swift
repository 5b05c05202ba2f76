package import Hoist
import Yams

/// Reads YAML as Python's safe dumper writes it: the types of JSON, dates and bytes. Other tags are refused.
package enum YAMLText {
    /// Has every message of this process that is in YAML read.
    package static func register() {
        Serialization.accept(Serialization.yaml) { bytes, limits throws(WireError) in
            try parse(bytes, limits: limits)
        }
    }

    /// The largest document, 1 MiB, whatever the limit of messages is.
    private static let maximumBytes = 1 << 20

    /// - Throws: `WireError` when the bytes are no YAML, exceed `limits`, or hold a tag that is not accepted. A retry
    ///   cannot help.
    package static func parse(_ bytes: [UInt8], limits: WireLimits = .default) throws(WireError) -> WireValue {
        guard bytes.count <= limits.maximumBytes else {
            throw WireError("\(bytes.count) bytes of YAML exceed the limit of \(limits.maximumBytes)")
        }
        // libyaml makes over a hundred bytes of each scalar before anything can be counted.
        guard bytes.count <= maximumBytes else {
            throw WireError("\(bytes.count) bytes of YAML exceed the limit of \(maximumBytes): use JSON or MessagePack")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw WireError("YAML: text that is not UTF-8")
        }
        let root: Node?
        do {
            // libyaml itself refuses documents nested deeper than 1,000 levels.
            root = try Yams.compose(yaml: text)
        } catch {
            throw WireError("YAML: the body is not well formed")
        }
        guard let root else { return .null }
        // An alias expands to everything under its anchor, so the limit counts expanded values, not written ones.
        var reader = Reader(
            maximumDepth: limits.maximumDepth, maximumValues: min(limits.maximumValues, bytes.count * 10 + 100))
        return try reader.value(of: root, depth: 0)
    }

    private struct Reader {
        let maximumDepth: Int
        let maximumValues: Int
        private var values = 0

        init(maximumDepth: Int, maximumValues: Int) {
            self.maximumDepth = maximumDepth
            self.maximumValues = maximumValues
        }

        mutating func value(of node: Node, depth: Int) throws(WireError) -> WireValue {
            values += 1
            guard values <= maximumValues else { throw WireError("YAML: more than \(maximumValues) values") }
            guard depth <= maximumDepth else { throw WireError("YAML: nested deeper than \(maximumDepth)") }
            let tag = Resolver.default.resolveTag(of: node)
            switch node {
            case .scalar(let scalar): return try self.scalar(scalar, tag)
            case .sequence(let sequence):
                guard tag == .seq || tag == .implicit else { throw WireError("YAML: a tag that is not accepted") }
                var elements: [WireValue] = []
                for element in sequence { elements.append(try value(of: element, depth: depth + 1)) }
                return .array(elements)
            case .mapping(let mapping):
                guard tag == .map || tag == .implicit else { throw WireError("YAML: a tag that is not accepted") }
                var members: WireValue.Object = [:]
                for (key, member) in mapping {
                    guard let key = key.scalar?.string else { throw WireError("YAML: a key is not a scalar") }
                    members[key] = try value(of: member, depth: depth + 1)
                }
                return .object(members)
            case .alias: throw WireError("YAML: an alias of nothing")
            }
        }

        /// An integer as YAML 1.1 writes times: `1:30` is 90. The reader of Yams traps where one is out of range.
        private func base60(_ scalar: Node.Scalar) throws(WireError) -> Int64 {
            let text = scalar.string.filter { $0 != "_" }
            let isNegative = text.hasPrefix("-")
            let digits = isNegative || text.hasPrefix("+") ? text.dropFirst() : text[...]
            var number: Int64 = 0
            for part in digits.split(separator: ":", omittingEmptySubsequences: false) {
                guard part.utf8.allSatisfy({ $0 &- 48 < 10 }), let digit = Int64(part) else {
                    throw WireError("YAML: no number")
                }
                let (scaled, scaledTooFar) = number.multipliedReportingOverflow(by: 60)
                let (sum, wentTooFar) = scaled.addingReportingOverflow(digit)
                guard !scaledTooFar, !wentTooFar else { throw WireError("YAML: an integer out of range") }
                number = sum
            }
            return isNegative ? -number : number
        }

        private func scalar(_ scalar: Node.Scalar, _ tag: Tag.Name) throws(WireError) -> WireValue {
            let text = scalar.string
            switch tag {
            case .null: return .null
            case .bool: return .bool(Bool.construct(from: scalar) ?? false)
            case .int:
                if text.contains(":") { return .integer(try base60(scalar)) }
                if let number = Int64.construct(from: scalar) { return .integer(number) }
                let digits = text.drop { $0 == "-" || $0 == "+" }
                guard !digits.isEmpty, digits.utf8.allSatisfy({ $0 &- 48 < 10 }) else {
                    throw WireError("YAML: an integer out of range")
                }
                return .bigInteger(text.hasPrefix("+") ? String(text.dropFirst()) : text)
            case .float:
                guard let number = Double.construct(from: scalar) else { throw WireError("YAML: no number") }
                return .double(number)
            case .str, .timestamp, .implicit: return .string(text)
            case .binary:
                guard let bytes = try? Base64.decode(text.utf8) else {
                    throw WireError("YAML: binary that is not base64")
                }
                return TypedValue.wire(bytes: bytes)
            default: throw WireError("YAML: a tag that is not accepted")
            }
        }
    }
}
