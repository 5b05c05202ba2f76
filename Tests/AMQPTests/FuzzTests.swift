import HoistTesting
import NIOCore
import Testing

@testable import AMQP

/// What a server sends, mutated.
@Suite("Mutated frames", .timeLimit(.minutes(10)))
struct FuzzTests {
    @Test("frames, and the machines behind them")
    func frames() throws {
        var corpus = try CodecTests.methods.map { try CodecTests.bytes($0) }
        corpus += try [0, 10, 2500].map { try CodecTests.delivery($0) }
        corpus.append([8, 0, 0, 0, 0, 0, 0, 0xCE])
        let limits = AMQPLimits(maximumBodyBytes: 1000)
        Fuzzing.run("frames", corpus: corpus, tokens: ["\u{CE}", "\u{0}\u{0}\u{0}", "F", "A", "S", "x"]) { bytes in
            var decoder = FrameDecoder(limits: limits, frameMaximum: 4096)
            var buffer = ByteBuffer(bytes: bytes)
            var machine = ChannelStateMachine<Int, Int>()
            var connection = ConnectionStateMachineTests.machine(.open)
            _ = machine.calling(.get, 0)
            _ = machine.calling(.confirmSelect, 1)
            _ = machine.publishing(2, mandatory: nil)
            var assembler = ContentAssembler(limits)
            while let frame = try? decoder.next(from: &buffer) {
                var content: ContentAssembler.Content?
                switch frame {
                case .heartbeat: break
                case .method(_, let method) where method.hasContent: _ = try? assembler.begin(method)
                case .method(0, let method): _ = connection.received(method)
                case .method(_, let method): _ = try? machine.received(method)
                case .header(_, let header): content = try? assembler.received(header)
                case .body(_, let part): content = try? assembler.received(part)
                }
                if let content { _ = try? machine.received(content) }
            }
        }
    }

    @Test("URLs")
    func urls() {
        let corpus = [
            "amqp://ada:s%3Aecret@example.com:7000/v%2Fh?heartbeat=5", "amqps://[::1]:6380?verify=verify_none",
            "amqp://one/x;two:7;amqp://three",
        ].map { Array($0.utf8) }
        Fuzzing.run("URLs of RabbitMQ", corpus: corpus, tokens: ["%", "%zz", "@", ":", "//", "?", "&", "=", ";", "["]) {
            _ = try? AMQPConfiguration(url: String(decoding: $0, as: UTF8.self))
        }
    }
}
