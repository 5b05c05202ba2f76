import NIOCore

/// One command, as it goes to the server.
public struct RESPCommand: Sendable {
    /// The encoded command.
    var bytes: ByteBuffer
    /// The key that decides where in a cluster the command runs; nil when it does not matter.
    var key: [UInt8]?

    /// - Parameters:
    ///   - name: the command, and its subcommand where it has one.
    ///   - arguments: the words after the name.
    ///   - key: a key of the command, needed only in a cluster.
    public init(_ name: String, _ arguments: [RESPArgument] = [], key: String? = nil) {
        let words = name.split(separator: " ")
        bytes = ByteBuffer()
        bytes.reserveCapacity(arguments.reduce(32 + name.utf8.count) { $0 + 16 + $1.length })
        bytes.writeLine(UInt8(ascii: "*"), words.count + arguments.count)
        for word in words { RESPArgument.text(String(word)).write(to: &bytes) }
        for argument in arguments { argument.write(to: &bytes) }
        self.key = key.map { Array($0.utf8) }
    }

    /// Names a key that decides where in a cluster the command runs.
    public mutating func route(by key: String) { self.key = Array(key.utf8) }
}

/// One word of a command.
public enum RESPArgument: Sendable, Hashable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
    case text(String)
    case bytes([UInt8])
    case integer(Int64)

    public init(stringLiteral value: String) { self = .text(value) }
    public init(integerLiteral value: Int64) { self = .integer(value) }

    var length: Int {
        switch self {
        case .text(let text): text.utf8.count
        case .bytes(let bytes): bytes.count
        case .integer: 20
        }
    }

    func write(to buffer: inout ByteBuffer) {
        switch self {
        case .text(let text):
            buffer.writeLine(UInt8(ascii: "$"), text.utf8.count)
            buffer.writeString(text)
        case .bytes(let bytes):
            buffer.writeLine(UInt8(ascii: "$"), bytes.count)
            buffer.writeBytes(bytes)
        case .integer(let value):
            let digits = String(value)
            buffer.writeLine(UInt8(ascii: "$"), digits.utf8.count)
            buffer.writeString(digits)
        }
        buffer.writeInteger(0x0D0A as UInt16)
    }
}

extension ByteBuffer {
    fileprivate mutating func writeLine(_ type: UInt8, _ count: Int) {
        writeInteger(type)
        writeString(String(count))
        writeInteger(0x0D0A as UInt16)
    }
}
