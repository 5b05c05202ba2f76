import Hoist
import NIOCore
import Testing

@testable import HoistRedis
@testable import RESP

/// What a worker and worker_turn.lua say to each other, byte for byte.
@Suite("The wire of a worker's turn")
struct TurnWireTests {
    private func text(_ write: (inout [RESPArgument]) -> Void) -> [String] {
        var arguments: [RESPArgument] = []
        write(&arguments)
        return arguments.map { argument in
            var buffer = ByteBuffer()
            argument.write(to: &buffer)
            return String(buffer: buffer)
        }
    }

    /// Words as RESP writes them.
    private func words(_ words: String...) -> [String] { words.map { "$\($0.utf8.count)\r\n\($0)\r\n" } }

    private func step(
        _ operation: SettlingStep.Operation, result: SettlingStep.StoredMeta? = nil,
        _ change: (inout SettlingStep) -> Void = { _ in }
    ) -> SettlingStep {
        var step = SettlingStep(id: "a", token: 7, operation: operation, result: result, queue: "q")
        change(&step)
        return step
    }

    private let stored = SettlingStep.StoredMeta(key: "r:a", seconds: 60, value: Array("{}".utf8))
    private let record = StoredJob(queue: "q", name: "n", state: .waiting, now: 5)
    private let recordText = #"p{"q":"q","n":"n","s":"waiting","p":9,"t":5}"#

    @Test("jobs that are simply done go as columns, with what is to be removed told apart from nothing")
    func done() {
        var removal = stored
        removal.isRemoval = true
        let steps = [step(.done, result: stored), step(.done) { $0.id = "b" }, step(.done, result: removal)]
        #expect(
            text { TurnWire.append(done: steps, withResults: true, to: &$0) }
                == words("3", "a", "b", "a", "7", "7", "7", "60", "", "-", "{}", "", "{}"))
        #expect(
            text { TurnWire.append(done: steps, withResults: false, to: &$0) }
                == words("3", "a", "b", "a", "7", "7", "7", "", "", "", "", "", ""))
    }

    @Test("every other settlement says what its operation needs, and what follows")
    func settlements() {
        func written(_ step: SettlingStep) -> [String] { text { TurnWire.append(step, withResult: true, to: &$0) } }
        #expect(written(step(.done, result: stored)) == words("a", "7", "S", "r:a", "60", "{}", "q", "0"))
        let dead = SettlingStep.Operation.ended(kind: "dead", keepUntil: 99, record: record, yields: false)
        #expect(written(step(dead)) == words("a", "7", "E", "", "0", "", "q", "dead", "99", recordText, "0"))
        let yielding = SettlingStep.Operation.ended(kind: "stopped", keepUntil: 9, record: record, yields: true)
        #expect(written(step(yielding)) == words("a", "7", "H", "", "0", "", "q", "stopped", "9", recordText, "0"))
        let later = SettlingStep.Operation.back(list: "q", due: 12, inFront: false, record: record, envelope: nil)
        #expect(written(step(later)) == words("a", "7", "B", "", "0", "", "q", "q", "12", "L", recordText, "", "0"))
        let withResult = step(dead) { $0.followUps = [.result(stored)] }
        #expect(
            written(withResult)
                == words("a", "7", "E", "", "0", "", "q", "dead", "99", recordText, "1", "r", "r:a", "60", "{}"))
    }

    @Test(
        "the side says where a job goes back and whether it has begun",
        arguments: [
            (false, true, true, "L"), (true, true, true, "R"), (false, false, true, "A"), (true, true, false, "F"),
        ])
    func sides(inFront: Bool, isBegun: Bool, counts: Bool, letter: String) {
        let back = SettlingStep.Operation.back(
            list: "q", due: nil, inFront: inFront, record: record, envelope: Array("e".utf8))
        let step = step(back) { ($0.isBegun, $0.countsAsStart) = (isBegun, counts) }
        #expect(
            text { TurnWire.append(step, withResult: true, to: &$0) }
                == words("a", "7", "B", "", "0", "", "q", "q", "", letter, recordText, "e", "0"))
    }

    private func bulk(_ text: String) -> RESPValue { .bulk(Array(text.utf8)) }

    @Test("a reply is read by its places, and one with a place more or less is none")
    func reply() throws {
        let deliveries: [RESPValue] = [.integer(2), bulk("x"), bulk("job"), bulk("3t"), bulk(""), bulk("envelope")]
        var values: [RESPValue] = [
            .integer(1), .array([.integer(2)]), .array([bulk("lost")]), .array([bulk("stop")]), .array([bulk("w2")]),
            .integer(42), .integer(0), .integer(1), .array([.integer(1)]), .integer(70), .array(deliveries),
            .integer(40), bulk(""), bulk("8.0"), .array([bulk("copy")]),
        ]
        let lists = [(queue: "q", list: "q"), (queue: "q", list: "q:9")]
        let answer = try #require(RedisBackend.Answer(.array(values), lists: lists))
        #expect(answer.isAlive && answer.codes == [2] && answer.refused == ["lost"] && answer.dead == ["w2"])
        #expect(answer.cancellations == ["stop"] && answer.nextDue?.microsecondsSinceEpoch == 42)
        #expect(!answer.hasMore && answer.hasStrangers && answer.emptyLists.map(\.list) == ["q"])
        #expect(answer.now == 40 && answer.problem.isEmpty && answer.standingVersion == "8.0")
        #expect(answer.copies == ["copy"])
        let delivery = try #require(answer.deliveries.first)
        #expect(delivery.id == "x" && delivery.name == "job" && delivery.list == "q:9" && delivery.token == 70)
        #expect(delivery.retries == 3 && delivery.kind == .timed && delivery.envelope == Array("envelope".utf8))
        values.removeLast()
        #expect(RedisBackend.Answer(.array(values), lists: lists) == nil)
    }

    @Test("Lua is told the same places in the same order")
    func prologue() {
        #expect(TurnWire.Settlement.allCases.map(\.name).prefix(4) == ["id", "token", "operation", "result_key"])
        let lua = TurnWire.prologue
        #expect(lua.contains("local t = { id = ARGV[at + 0], token = ARGV[at + 1], result_key = ARGV[at + 2],"))
        #expect(lua.contains("local done_id, done_token, done_seconds, done_result = 0, 1, 2, 3"))
        #expect(lua.contains("return { reply.is_alive, reply.codes, reply.refused, reply.to_cancel, reply.dead,"))
    }
}
