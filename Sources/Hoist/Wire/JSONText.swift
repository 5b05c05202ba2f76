#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// The type of every point in time in the API: Foundation's `Date`, for modules that do not import Foundation.
public typealias JobDate = Date

/// Encodes and decodes Swift values as wire JSON, for backends and programs that store or show values of their own.
public enum JSONText {
    /// - Throws: `EncodingError`, or what the value's own `encode(to:)` throws.
    public static func encode(_ value: some Encodable) throws -> [UInt8] {
        JSONWriter.bytes(of: try WireEncoder.encode(value))
    }

    /// JSON for pages, programs and people: valid by RFC 8259 for every value. Dates are ISO 8601 text in UTC, and not
    /// objects that name their type as on Celery's wire; `NaN` and the infinities become null.
    /// - Throws: as ``encode(_:)``.
    public static func shown(_ value: some Encodable) throws -> String {
        shown(TypedValue.plain(try WireEncoder.encode(value)))
    }

    /// JSON for pages, programs and people, valid by RFC 8259: what is no number there becomes null.
    public static func shown(_ value: WireValue) -> String {
        String(decoding: JSONWriter.bytes(of: value, isStrict: true), as: UTF8.self)
    }

    /// - Throws: ``WireError`` when the bytes are not JSON or exceed ``WireLimits/default``, `DecodingError` when the
    ///   JSON is not a `T`, or what the type's own `init(from:)` throws. A retry cannot help.
    public static func decode<T: Decodable>(_ type: T.Type, from bytes: [UInt8]) throws -> T {
        try WireDecoder.decode(type, from: try JSONParser.parse(bytes))
    }

    /// - Throws: ``WireError`` when the bytes are not JSON or exceed ``WireLimits/default``. A retry cannot help.
    public static func parse(_ bytes: [UInt8]) throws(WireError) -> WireValue { try JSONParser.parse(bytes) }
}
