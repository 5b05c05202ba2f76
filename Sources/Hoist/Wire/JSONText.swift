#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// The point in time that the API speaks of: Foundation's `Date`, named here for modules that do not import Foundation.
public typealias JobDate = Date

/// Swift values as the JSON that travels, for backends and programs that keep or show some of their own.
public enum JSONText {
    /// - Throws: `EncodingError`, or what the value's own `encode(to:)` throws.
    public static func encode(_ value: some Encodable) throws -> [UInt8] {
        JSONWriter.bytes(of: try WireEncoder.encode(value))
    }

    /// - Throws: ``WireError`` when the bytes are no JSON, `DecodingError` when they are no `T`.
    public static func decode<T: Decodable>(_ type: T.Type, from bytes: [UInt8]) throws -> T {
        try WireDecoder.decode(type, from: try JSONParser.parse(bytes))
    }

    /// - Throws: ``WireError`` when the bytes are no JSON.
    public static func parse(_ bytes: [UInt8]) throws(WireError) -> WireValue { try JSONParser.parse(bytes) }
}
