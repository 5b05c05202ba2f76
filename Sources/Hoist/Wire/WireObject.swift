import OrderedCollections

/// The members of a JSON object, in insertion order.
public struct WireObject: Sendable, Hashable {
    private var members: OrderedDictionary<String, WireValue>

    public init() { members = [:] }

    /// When a name occurs several times, the last value wins.
    public init(_ elements: some Sequence<(String, WireValue)>) {
        members = OrderedDictionary(elements, uniquingKeysWith: { _, last in last })
    }

    init(minimumCapacity: Int) { members = OrderedDictionary(minimumCapacity: minimumCapacity) }

    public subscript(key: String) -> WireValue? {
        get { members[key] }
        set { members[key] = newValue }
    }

    public var isEmpty: Bool { members.isEmpty }
    public var count: Int { members.count }
    public var keys: [String] { Array(members.keys) }

    /// The members of both objects. Where both have a member, the value in `other` wins.
    public func merging(_ other: WireObject) -> WireObject {
        var result = self
        for (key, value) in other { result[key] = value }
        return result
    }
}

extension WireObject: Sequence {
    public struct Iterator: IteratorProtocol {
        fileprivate var base: OrderedDictionary<String, WireValue>.Iterator

        public mutating func next() -> (key: String, value: WireValue)? { base.next() }
    }

    public func makeIterator() -> Iterator { Iterator(base: members.makeIterator()) }
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
