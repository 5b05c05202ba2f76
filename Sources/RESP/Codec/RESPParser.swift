public import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Parses values from bytes that arrive in pieces. The parser keeps its position between pieces, so that a large reply
/// is parsed once.
///
/// Any bytes of a server lead to a value or to an error, never to a trap. A length that is only announced allocates no
/// more than room for 1,024 elements in each array.
public struct RESPParser: Sendable {
    public struct Limits: Sendable {
        /// The largest string, in bytes. 512 MiB by default, which is Redis' own limit.
        public var maximumStringBytes: Int
        /// How deep arrays and maps may nest. 32 by default.
        public var maximumDepth: Int
        /// How many elements one reply may have in all. 16,777,216 by default.
        public var maximumElements: Int

        public init(maximumStringBytes: Int = 512 << 20, maximumDepth: Int = 32, maximumElements: Int = 1 << 24) {
            self.maximumStringBytes = maximumStringBytes
            self.maximumDepth = maximumDepth
            self.maximumElements = maximumElements
        }
    }

    /// One complete message of the server.
    public enum Reply: Sendable, Hashable {
        /// The answer to a command.
        case value(RESPValue)
        /// A message that answers no command (RESP3).
        case push([RESPValue])
    }

    /// The bytes violate the protocol or a limit. The connection cannot be used any more.
    public struct Violation: Error, Sendable, Hashable, CustomStringConvertible {
        public var description: String
        init(_ description: String) { self.description = description }
    }

    private enum Kind { case array, map, push, attribute }

    private struct Frame {
        var kind: Kind
        var remaining: Int
        var elements: [RESPValue]
    }

    private enum Step {
        case value(RESPValue)
        case open(Kind, count: Int)
    }

    private static let maximumLineBytes = 65_536
    private let limits: Limits
    private var stack: [Frame] = []
    private var elementCount = 0

    public init(limits: Limits = Limits()) { self.limits = limits }

    /// The next complete message, or nil when more bytes are needed. The bytes that were read are removed from
    /// `buffer`.
    /// - Throws: ``Violation`` when the bytes violate the protocol or a limit. A second call is not safe: the position
    ///   in the bytes is lost, and the connection must be closed.
    public mutating func next(from buffer: inout ByteBuffer) throws(Violation) -> Reply? {
        while let step = try step(&buffer) {
            var finished: RESPValue
            switch step {
            case .open(let kind, let count):
                guard stack.count < limits.maximumDepth else {
                    throw Violation("nested deeper than \(limits.maximumDepth)")
                }
                guard count <= limits.maximumElements - elementCount else {
                    throw Violation("more than \(limits.maximumElements) elements")
                }
                elementCount += count
                var elements: [RESPValue] = []
                elements.reserveCapacity(min(count, 1024))
                stack.append(Frame(kind: kind, remaining: count, elements: elements))
                guard count == 0 else { continue }
                guard let frame = stack.popLast() else { continue }
                if frame.kind == .attribute { continue }
                if frame.kind == .push { return try push(frame) }
                finished = value(of: frame)
            case .value(let value): finished = value
            }
            var mustReadOn = false
            while let top = stack.indices.last {
                stack[top].elements.append(finished)
                stack[top].remaining -= 1
                mustReadOn = stack[top].remaining > 0
                if mustReadOn { break }
                let frame = stack.removeLast()
                // An attribute describes the value that follows. This client does not use attributes.
                if frame.kind == .attribute {
                    mustReadOn = true
                    break
                }
                if frame.kind == .push { return try push(frame) }
                finished = value(of: frame)
            }
            if mustReadOn { continue }
            elementCount = 0
            return .value(finished)
        }
        return nil
    }

    private mutating func push(_ frame: Frame) throws(Violation) -> Reply {
        guard stack.isEmpty else { throw Violation("a push message inside a reply") }
        elementCount = 0
        return .push(frame.elements)
    }

    private func value(of frame: Frame) -> RESPValue {
        frame.kind == .map ? .map(frame.elements) : .array(frame.elements)
    }

    /// Parses one line and the bytes that belong to it; nil when they have not all arrived.
    private func step(_ buffer: inout ByteBuffer) throws(Violation) -> Step? {
        guard let lineLength = try lineLength(buffer) else { return nil }
        let start = buffer.readerIndex
        guard lineLength > 0, let type = buffer.getInteger(at: start, as: UInt8.self) else {
            throw Violation("an empty line")
        }
        let after = start + lineLength + 2
        func line() -> String { buffer.getString(at: start + 1, length: lineLength - 1) ?? "" }
        func number() throws(Violation) -> Int {
            guard let number = integer(buffer, at: start + 1, length: lineLength - 1) else {
                throw Violation("no number where one belongs")
            }
            return Int(number)
        }
        func consumed(_ value: RESPValue) -> Step {
            buffer.moveReaderIndex(to: after)
            return .value(value)
        }
        func opened(_ kind: Kind, times: Int = 1) throws(Violation) -> Step {
            let count = try number()
            if count == -1, kind == .array { return consumed(.null) }
            guard count >= 0, count <= limits.maximumElements else { throw Violation("\(count) elements") }
            buffer.moveReaderIndex(to: after)
            return .open(kind, count: count * times)
        }
        switch type {
        case UInt8(ascii: "$"), UInt8(ascii: "="), UInt8(ascii: "!"):
            let count = try number()
            if count == -1 { return consumed(.null) }
            guard count >= 0, count <= limits.maximumStringBytes else { throw Violation("a string of \(count) bytes") }
            guard buffer.writerIndex - after >= count + 2 else { return nil }
            guard buffer.getInteger(at: after + count, as: UInt16.self) == 0x0D0A,
                var bytes = buffer.getBytes(at: after, length: count)
            else { throw Violation("a string without its end") }
            buffer.moveReaderIndex(to: after + count + 2)
            if type == UInt8(ascii: "!") {
                return .value(.error(RESPServerError(String(decoding: bytes, as: UTF8.self))))
            }
            if type == UInt8(ascii: "=") { bytes.removeFirst(min(4, bytes.count)) }
            return .value(.bulk(bytes))
        case UInt8(ascii: "+"): return consumed(.simple(line()))
        case UInt8(ascii: "-"): return consumed(.error(RESPServerError(line())))
        case UInt8(ascii: ":"):
            guard let number = integer(buffer, at: start + 1, length: lineLength - 1) else {
                throw Violation("no integer")
            }
            return consumed(.integer(number))
        case UInt8(ascii: "_"): return consumed(.null)
        case UInt8(ascii: "#"):
            let flag = line()
            guard flag == "t" || flag == "f" else { throw Violation("no boolean") }
            return consumed(.boolean(flag == "t"))
        case UInt8(ascii: ","):
            guard let number = Double(line()) else { throw Violation("no double") }
            return consumed(.double(number))
        case UInt8(ascii: "("):
            let digits = line()
            let unsigned = digits.utf8.first == UInt8(ascii: "-") ? digits.utf8.dropFirst() : digits.utf8[...]
            guard !unsigned.isEmpty, unsigned.allSatisfy({ $0 &- 48 < 10 }) else { throw Violation("no big number") }
            return consumed(.bigNumber(digits))
        case UInt8(ascii: "*"), UInt8(ascii: "~"): return try opened(.array)
        case UInt8(ascii: "%"): return try opened(.map, times: 2)
        case UInt8(ascii: ">"): return try opened(.push)
        case UInt8(ascii: "|"): return try opened(.attribute, times: 2)
        default: throw Violation("the unknown type \(type)")
        }
    }

    /// How long the next line is, without its end; nil when the end has not come yet.
    private func lineLength(_ buffer: ByteBuffer) throws(Violation) -> Int? {
        let newline = buffer.withUnsafeReadableBytes { bytes -> Int? in
            guard let base = bytes.baseAddress,
                let found = memchr(base, 0x0A, min(bytes.count, Self.maximumLineBytes + 2))
            else {
                return nil
            }
            return UnsafeRawPointer(found) - base
        }
        guard let newline else {
            guard buffer.readableBytes <= Self.maximumLineBytes else {
                throw Violation("a line of more than \(Self.maximumLineBytes) bytes")
            }
            return nil
        }
        guard newline > 0, buffer.getInteger(at: buffer.readerIndex + newline - 1, as: UInt8.self) == 0x0D else {
            throw Violation("a line without its end")
        }
        return newline - 1
    }

    private func integer(_ buffer: ByteBuffer, at index: Int, length: Int) -> Int64? {
        guard length > 0, length <= 20 else { return nil }
        return buffer.getSlice(at: index, length: length).map(\.readableBytesView).flatMap { view in
            var magnitude: UInt64 = 0
            var digits = 0
            let isNegative = view.first == UInt8(ascii: "-")
            for byte in isNegative || view.first == UInt8(ascii: "+") ? view.dropFirst() : view {
                guard byte &- 48 < 10, magnitude <= (.max - 9) / 10 else { return nil }
                magnitude = magnitude * 10 + UInt64(byte &- 48)
                digits += 1
            }
            guard digits > 0 else { return nil }
            if isNegative { return magnitude <= 1 << 63 ? Int64(truncatingIfNeeded: 0 &- magnitude) : nil }
            return Int64(exactly: magnitude)
        }
    }
}
