import OrderedCollections

/// The members of a JSON object, in insertion order.
public struct WireObject: Sendable, Hashable {
    /// A name as JSON compares names: by its code points. Swift's own comparison takes composed and decomposed forms of
    /// a letter for the same.
    private struct Name: Hashable {
        var text: String

        static func == (a: Name, b: Name) -> Bool {
            // Mostly the same bytes, which Swift compares fastest.
            guard a.text == b.text else { return false }
            return a.text.utf8.count == b.text.utf8.count && a.text.utf8.elementsEqual(b.text.utf8)
        }

        // What has the same code points is the same to Swift as well, and has the same hash.
        func hash(into hasher: inout Hasher) { hasher.combine(text) }
    }

    private var members: OrderedDictionary<Name, WireValue>

    public init() { members = [:] }

    /// When a name occurs several times, the last value wins.
    public init(_ elements: some Sequence<(String, WireValue)>) {
        members = OrderedDictionary(elements.map { (Name(text: $0), $1) }, uniquingKeysWith: { _, last in last })
    }

    init(minimumCapacity: Int) { members = OrderedDictionary(minimumCapacity: minimumCapacity) }

    public subscript(key: String) -> WireValue? {
        get { members[Name(text: key)] }
        set { members[Name(text: key)] = newValue }
    }

    public var isEmpty: Bool { members.isEmpty }
    public var count: Int { members.count }
    public var keys: [String] { members.keys.map(\.text) }

    /// The members of both objects. Where both have a member, the value in `other` wins.
    public func merging(_ other: WireObject) -> WireObject {
        var result = self
        for (key, value) in other { result[key] = value }
        return result
    }
}

extension WireObject: Sequence {
    public struct Iterator: IteratorProtocol {
        private var base: OrderedDictionary<Name, WireValue>.Iterator

        fileprivate init(_ object: WireObject) { base = object.members.makeIterator() }

        public mutating func next() -> (key: String, value: WireValue)? { base.next().map { ($0.key.text, $0.value) } }
    }

    public func makeIterator() -> Iterator { Iterator(self) }
}

extension WireObject: ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral elements: (String, WireValue)...) { self.init(elements) }
}

extension WireObject: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        guard case .object(let object) = try container.decode(WireValue.self) else {
            throw DecodingError.typeMismatch(
                WireObject.self, .init(codingPath: decoder.codingPath, debugDescription: "not an object"))
        }
        self = object
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(WireValue.object(self))
    }
}
