import NIOCore

/// Reads and writes the elementary types of AMQP (AMQP 0-9-1 §4.2.5). Every read checks what is there first.
extension ByteBuffer {
    mutating func need<Value>(_ value: Value?) throws(AMQPViolation) -> Value {
        guard let value else { throw AMQPViolation("a frame ends in the middle of a value") }
        return value
    }

    mutating func number<Number: FixedWidthInteger>(_ type: Number.Type = Number.self) throws(AMQPViolation) -> Number {
        try need(readInteger(as: type))
    }

    mutating func shortString() throws(AMQPViolation) -> String {
        let count = Int(try number(UInt8.self))
        let bytes = try need(readBytes(length: count))
        // Names that are no UTF-8 cannot be answered to; texts of other programs only have to be shown.
        return String(decoding: bytes, as: UTF8.self)
    }

    mutating func longString() throws(AMQPViolation) -> [UInt8] {
        let count = Int(try number(UInt32.self))
        // Checked before memory is allocated for the string.
        guard count <= readableBytes else { throw AMQPViolation("a string is longer than its frame") }
        return try need(readBytes(length: count))
    }

    mutating func table(_ limits: AMQPLimits) throws(AMQPViolation) -> AMQPTable {
        var room = limits.maximumFields
        return try table(depth: limits.maximumDepth, room: &room)
    }

    private mutating func part() throws(AMQPViolation) -> ByteBuffer {
        let count = Int(try number(UInt32.self))
        guard let part = readSlice(length: count) else { throw AMQPViolation("a table is longer than its frame") }
        return part
    }

    private mutating func table(depth: Int, room: inout Int) throws(AMQPViolation) -> AMQPTable {
        guard depth > 0 else { throw AMQPViolation("tables are nested too deeply") }
        var part = try part()
        var table = AMQPTable()
        while part.readableBytes > 0 {
            let name = try part.shortString()
            table.fields.append(AMQPTable.Field(name, try part.fieldValue(depth: depth, room: &room)))
        }
        return table
    }

    private mutating func fieldValue(depth: Int, room: inout Int) throws(AMQPViolation) -> AMQPFieldValue {
        room -= 1
        guard room >= 0 else { throw AMQPViolation("a table has too many fields") }
        let type = try number(UInt8.self)
        switch UnicodeScalar(type) {
        case "t": return .bool(try number(UInt8.self) != 0)
        case "b": return .int8(try number())
        case "B": return .uint8(try number())
        case "s": return .int16(try number())
        case "u": return .uint16(try number())
        case "I": return .int32(try number())
        case "i": return .uint32(try number())
        // Python's client writes L where the others write l.
        case "l", "L": return .int64(try number())
        case "f": return .float(Float(bitPattern: try number()))
        case "d": return .double(Double(bitPattern: try number()))
        case "D": return .decimal(scale: try number(), value: try number())
        case "S": return .longString(try longString())
        case "x": return .bytes(try longString())
        case "T": return .timestamp(try number())
        case "V": return .void
        case "F": return .table(try table(depth: depth - 1, room: &room))
        case "A":
            guard depth > 1 else { throw AMQPViolation("arrays are nested too deeply") }
            var part = try part()
            var elements: [AMQPFieldValue] = []
            while part.readableBytes > 0 { elements.append(try part.fieldValue(depth: depth - 1, room: &room)) }
            return .array(elements)
        default: throw AMQPViolation("a field has the unknown type \(type)")
        }
    }

    /// - Throws: ``AMQPError`` `.misuse` for a string of more than 255 bytes.
    mutating func write(shortString text: String) throws(AMQPError) {
        let count = text.utf8.count
        guard count <= 255 else {
            throw AMQPError(.misuse, "\(text.prefix(40))… has \(count) bytes; a name has 255 at most")
        }
        writeInteger(UInt8(count))
        writeString(text)
    }

    mutating func write(longString bytes: some Collection<UInt8>) {
        writeInteger(UInt32(bytes.count))
        writeBytes(bytes)
    }

    mutating func write(_ table: AMQPTable) throws(AMQPError) {
        try writeSized { (buffer) throws(AMQPError) in
            for field in table.fields {
                try buffer.write(shortString: field.name)
                try buffer.write(field.value)
            }
        }
    }

    private mutating func writeSized(_ content: (inout ByteBuffer) throws(AMQPError) -> Void) throws(AMQPError) {
        let place = writerIndex
        writeInteger(UInt32(0))
        try content(&self)
        setInteger(UInt32(writerIndex - place - 4), at: place)
    }

    private mutating func write(type: UnicodeScalar, _ number: some FixedWidthInteger) {
        writeInteger(UInt8(ascii: type))
        writeInteger(number)
    }

    private mutating func write(_ value: AMQPFieldValue) throws(AMQPError) {
        switch value {
        case .bool(let value): write(type: "t", value ? UInt8(1) : 0)
        case .int8(let value): write(type: "b", value)
        case .uint8(let value): write(type: "B", value)
        case .int16(let value): write(type: "s", value)
        case .uint16(let value): write(type: "u", value)
        case .int32(let value): write(type: "I", value)
        case .uint32(let value): write(type: "i", value)
        case .int64(let value): write(type: "l", value)
        case .float(let value): write(type: "f", value.bitPattern)
        case .double(let value): write(type: "d", value.bitPattern)
        case .decimal(let scale, let value):
            write(type: "D", scale)
            writeInteger(value)
        case .longString(let bytes):
            writeInteger(UInt8(ascii: "S"))
            write(longString: bytes)
        case .bytes(let bytes):
            writeInteger(UInt8(ascii: "x"))
            write(longString: bytes)
        case .timestamp(let value): write(type: "T", value)
        case .void: writeInteger(UInt8(ascii: "V"))
        case .table(let table):
            writeInteger(UInt8(ascii: "F"))
            try write(table)
        case .array(let elements):
            writeInteger(UInt8(ascii: "A"))
            try writeSized { (buffer) throws(AMQPError) in for element in elements { try buffer.write(element) } }
        }
    }
}
