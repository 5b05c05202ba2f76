import Endpoints
import NIOCore
import Testing

@testable import RESP

@Suite("Reading what a server sends")
struct ParserTests {
    private func parse(_ text: String, limits: RESPParser.Limits = .init()) throws -> [RESPParser.Reply] {
        var parser = RESPParser(limits: limits)
        var buffer = ByteBuffer(string: text)
        var replies: [RESPParser.Reply] = []
        while let reply = try parser.next(from: &buffer) { replies.append(reply) }
        return replies
    }

    static let samples: [(String, RESPParser.Reply)] = [
        ("+OK\r\n", .value(.simple("OK"))),
        ("-ERR no\r\n", .value(.error(RESPServerError("ERR no")))),
        ("!5\r\nERR a\r\n", .value(.error(RESPServerError("ERR a")))),
        (":-42\r\n", .value(.integer(-42))),
        (":9223372036854775807\r\n", .value(.integer(.max))),
        (":-9223372036854775808\r\n", .value(.integer(.min))),
        ("$5\r\nhello\r\n", .value(.bulk(Array("hello".utf8)))),
        ("$0\r\n\r\n", .value(.bulk([]))),
        ("$4\r\na\r\nb\r\n", .value(.bulk(Array("a\r\nb".utf8)))),
        ("=7\r\ntxt:abc\r\n", .value(.bulk(Array("abc".utf8)))),
        ("$-1\r\n", .value(.null)), ("*-1\r\n", .value(.null)), ("_\r\n", .value(.null)),
        ("#t\r\n", .value(.boolean(true))), (",1.5\r\n", .value(.double(1.5))),
        (",inf\r\n", .value(.double(.infinity))),
        ("(12345678901234567890123\r\n", .value(.bigNumber("12345678901234567890123"))),
        ("*0\r\n", .value(.array([]))), ("%0\r\n", .value(.map([]))),
        ("*2\r\n:1\r\n*1\r\n+a\r\n", .value(.array([.integer(1), .array([.simple("a")])]))),
        ("~2\r\n:1\r\n:2\r\n", .value(.array([.integer(1), .integer(2)]))),
        ("%1\r\n+k\r\n:1\r\n", .value(.map([.simple("k"), .integer(1)]))),
        (">2\r\n+message\r\n+x\r\n", .push([.simple("message"), .simple("x")])),
        ("|1\r\n+ttl\r\n:3\r\n:7\r\n", .value(.integer(7))),
        ("*2\r\n|1\r\n+a\r\n:1\r\n:1\r\n:2\r\n", .value(.array([.integer(1), .integer(2)]))),
    ]

    @Test("each kind of value is read, whole and byte by byte", arguments: samples)
    func kinds(_ text: String, _ expected: RESPParser.Reply) throws {
        #expect(try parse(text) == [expected])
        var parser = RESPParser()
        var buffer = ByteBuffer()
        for (index, byte) in text.utf8.enumerated() {
            buffer.writeInteger(byte)
            let reply = try parser.next(from: &buffer)
            #expect(reply == (index == text.utf8.count - 1 ? expected : nil))
        }
        #expect(buffer.readableBytes == 0)
    }

    @Test("values that arrive glued together are read one after the other")
    func glued() throws {
        let replies = try parse(Self.samples.map(\.0).joined())
        #expect(replies == Self.samples.map(\.1))
    }

    @Test("what is not the protocol is refused, and nothing is allocated for what is only announced")
    func violations() {
        let cases = [
            "hello\r\n", "\r\n", "$x\r\n", "$-2\r\n", "$999999999999\r\n", "*-2\r\n", "*99999999999\r\n", ":\r\n",
            ":12a\r\n",
            ":99999999999999999999\r\n", ":-99999999999999999999\r\n", ":18446744073709551616\r\n", "#x\r\n",
            ",abc\r\n", "(12x\r\n",
            "(-\r\n", "$3\r\nabcd\r\n", "+a\n", "%99999999999999\r\n",
            String(repeating: "*1\r\n", count: 100), "*2\r\n>1\r\n+x\r\n", "+" + String(repeating: "x", count: 70_000),
        ]
        for text in cases { #expect(throws: RESPParser.Violation.self, "\(text.prefix(20))") { try parse(text) } }
    }

    @Test("limits hold")
    func limits() throws {
        #expect(throws: RESPParser.Violation.self) { try parse("$11\r\n", limits: .init(maximumStringBytes: 10)) }
        #expect(throws: RESPParser.Violation.self) { try parse("*3\r\n*9\r\n", limits: .init(maximumElements: 10)) }
        #expect(throws: RESPParser.Violation.self) { try parse("*1\r\n*1\r\n*1\r\n", limits: .init(maximumDepth: 2)) }
        // An array that claims millions of elements costs nothing until they come.
        #expect(try parse("*16777216\r\n").isEmpty)
    }

    @Test("random bytes never trap")
    func random() {
        var generator = SystemRandomNumberGenerator()
        let alphabet = Array("+-:$*%~>|_#,(=!0123456789abc\r\n".utf8)
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 1...40)).map { _ in
                Bool.random()
                    ? alphabet.randomElement(using: &generator)! : UInt8.random(in: 0...255, using: &generator)
            }
            var parser = RESPParser()
            var buffer = ByteBuffer(bytes: bytes)
            do { while try parser.next(from: &buffer) != nil {} } catch {}
        }
    }

    @Test("a command is an array of strings")
    func commands() {
        let command = RESPCommand("CLIENT SETNAME", ["ä", .integer(-7), .bytes([0, 13, 10])])
        #expect(
            String(buffer: command.bytes)
                == "*5\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$2\r\nä\r\n$2\r\n-7\r\n$3\r\n\u{0}\r\n\r\n")
    }

    @Test("slots of keys are those of the specification")
    func slots() {
        #expect(ClusterSlot.of(Array("123456789".utf8)) == 0x31C3 % 16384)
        #expect(
            ClusterSlot.of(Array("{user1000}.following".utf8)) == ClusterSlot.of(Array("{user1000}.followers".utf8)))
        #expect(ClusterSlot.of(Array("foo{}{bar}".utf8)) == ClusterSlot.of(Array("foo{}{bar}".utf8)))
        #expect(ClusterSlot.of(Array("foo{{bar}}zap".utf8)) == ClusterSlot.of(Array("{bar".utf8)))
        #expect(ClusterSlot.of([]) == 0)
    }

    @Test("redirections are read, strange ones are none")
    func redirections() {
        let origin = ServerAddress.host("a", port: 1)
        func read(_ text: String) -> ClusterRedirection? {
            ClusterRedirection(.error(RESPServerError(text)), from: origin)
        }
        #expect(read("MOVED 3999 127.0.0.1:6381")?.address == .host("127.0.0.1", port: 6381))
        #expect(read("ASK 3999 ::1:6381")?.isForOnce == true)
        #expect(read("MOVED 3999 :6381")?.address == .host("a", port: 6381), "the same host")
        for text in ["MOVED", "MOVED x y:1", "MOVED 99999 a:1", "MOVED 1 a", "MOVED 1 a:99999", "ERR no"] {
            #expect(read(text) == nil, "\(text)")
        }
    }
}
