import HoistTesting
import NIOCore
@testable import RESP
import Testing

/// What a server sends, mutated.
@Suite("Mutated replies", .timeLimit(.minutes(10)))
struct FuzzTests {
    @Test("replies")
    func replies() {
        let corpus = ParserTests.samples.map { Array($0.0.utf8) }
        let tokens =
            Fuzzing.defaultTokens + ["*9999999\r\n", "$-2\r\n", "%1\r\n", "|1\r\n", ">1\r\n", ",nan\r\n", "(1\r\n"]
        Fuzzing.run("replies", corpus: corpus, tokens: tokens) { bytes in
            var parser = RESPParser(limits: .init())
            var buffer = ByteBuffer(bytes: bytes)
            while let reply = try? parser.next(from: &buffer) {
                if case .value(let value) = reply { _ = (value.text, value.integer, value.bytes, value.elements) }
            }
        }
    }

    @Test("URLs")
    func urls() {
        let corpus = [
            "redis://ada:s%3Aecret@example.com:7000/3?db=1", "rediss://[::1]:6380",
            "sentinel://a:1;sentinel://b/0?master_name=m",
            "redis+cluster://a:1,b:2", "unix:///run/r.sock?password=x",
        ].map { Array($0.utf8) }
        Fuzzing.run(
            "URLs", corpus: corpus, tokens: ["%", "%zz", "@", ":", "//", "?", "&", "=", ";", ",", "[", "]", "65536"]
        ) {
            _ = try? RESPConfiguration(url: String(decoding: $0, as: UTF8.self))
        }
    }
}
