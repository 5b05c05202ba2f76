import Foundation
import Hoist
@testable import HoistRedis
import Testing

/// Stored records, Celery's results, late retries: bytes in, bytes out, with no server.
@Suite("Stored forms on Redis", .timeLimit(.minutes(3)))
struct StoredFormsTests {
    private func record(_ change: (inout StoredJob) -> Void = { _ in }) -> StoredJob {
        var record = StoredJob(queue: "media", name: "video", state: .waiting, now: 1_000_000)
        change(&record)
        return record
    }

    @Test("a record comes back as it was stored, with every member")
    func records() {
        let attempt = AttemptRecord(
            number: 1, worker: "w", startedAt: nil, endedAt: JobDate(microsecondsSinceEpoch: 5), outcome: "failed",
            failure: JobFailure(kind: .raised, type: "Oops", message: "no \"luck\"\n"))
        let full = record { job in
            (job.urgency, job.enqueuedAt, job.expires, job.isAtMostOnce) = (7, 12, 34, true)
            (job.lostWorkers, job.worker, job.startedAt, job.endedAt) = (2, "host:1", 56, 78)
            job.unique = UniqueKey("größe", scope: .remembered(for: .seconds(60)))
            job.history = [attempt]
            job.failure = attempt.failure
        }
        for job in [record(), full, record { $0.state = .retrying }] { #expect(StoredJob(job.encoded) == job) }
    }

    @Test("the first letter tells the scripts whether to look inside")
    func letters() {
        #expect(record().encoded.first == UInt8(ascii: "p"))
        #expect(record { $0.unique = UniqueKey("k") }.encoded.first == UInt8(ascii: "x"))
        #expect(record { $0.isCancelledInPlace = true }.encoded.first == UInt8(ascii: "c"))
    }

    @Test(
        "what is no record is nil, never a trap",
        arguments: [
            "", "p", "p{", "p[]", "p{}", #"p{"q":1,"n":"x"}"#, #"p{"q":"a"}"#, "{\"q\":\"a\",\"n\":\"b\"}", "\u{0}",
        ])
    func badRecords(_ text: String) { #expect(StoredJob(Array(text.utf8)) == nil) }

    @Test("members of the wrong kind, or at the edges of their range, are read as far as they make sense")
    func oddMembers() throws {
        let text = #"p{"q":"a","n":"b","s":"no state","p":"x","lost":-5,"h":7,"f":[],"u":[1],"t":9223372036854775807}"#
        let job = try #require(StoredJob(Array(text.utf8)))
        #expect(job.state == .waiting && job.urgency == 0 && job.history.isEmpty && job.unique == nil)
        #expect(job.changedAt == .max)
    }

    @Test("a history is cut at a hundred attempts")
    func longHistory() {
        let attempt = AttemptRecord(
            number: 1, worker: nil, startedAt: nil, endedAt: JobDate(microsecondsSinceEpoch: 5), outcome: "snoozed",
            failure: nil)
        let job = record { job in for _ in 0..<150 { job.append(attempt) } }
        #expect(job.history.count == 100)
    }

    @Test("what is held is four lines, and the record may hold line breaks")
    func held() throws {
        let line = Array("17\n123\nmedia\u{6}\u{16}3\n".utf8) + record().encoded
        let job = try #require(HeldJob(line, envelope: [1]))
        #expect(job.token == 17 && job.began == 123 && job.list == "media\u{6}\u{16}3" && job.record == record())
        for bad in ["", "1\n2\n3", "x\n2\n3\n4"] { #expect(HeldJob(Array(bad.utf8), envelope: []) == nil) }
    }

    @Test("a success in Celery's form: byte for byte")
    func success() {
        var result = CeleryResult(id: "a", status: "SUCCESS", result: Array("{\"n\":1}".utf8), hoist: ["t": 5])
        result.children = [FollowUps.child("b"), [["g", nil], [FollowUps.child("c")]]]
        result.parentID = "p"
        result.doneAt = JobDate(microsecondsSinceEpoch: 1_500_000)
        let expected =
            #"{"status": "SUCCESS","result":{"n":1},"traceback":null,"children":[[["b",null],null],[["g",null],"#
            + #"[[["c",null],null]]]],"date_done":"1970-01-01T00:00:01.500000+00:00","parent_id":"p","task_id":"a","#
            + #""hoist":{"t":5}}"#
        #expect(String(decoding: result.encoded, as: UTF8.self) == expected)
        #expect(StoredResult(result.encoded)?.state == .succeeded)
    }

    @Test(
        "failures in Python's terms",
        arguments: [
            (JobFailure.Kind.raised, "Oops", nil as String?), (.badArguments, "TypeError", "builtins"),
            (.timedOut, "TimeLimitExceeded", "billiard.exceptions"),
            (.crashed, "WorkerLostError", "billiard.exceptions"),
            (.memoryExceeded, "MemoryError", "builtins"), (.deadLettered, "Reject", "celery.exceptions"),
        ])
    func failures(_ kind: JobFailure.Kind, _ type: String, _ module: String?) throws {
        let failure = JobFailure(kind: kind, type: "Oops", message: "why")
        let value = try JSONParser.parse(CeleryResult.exception(failure))
        #expect(value["exc_type"]?.stringValue == type && value["exc_module"]?.stringValue == module)
        #expect(value["exc_message"]?.arrayValue?.first == "why")
    }

    @Test("results of others are read: states, errors as text or list, progress with current and total")
    func foreign() throws {
        func read(_ text: String) throws -> StoredResult { try #require(StoredResult(Array(text.utf8))) }
        #expect(try read(#"{"status": "REVOKED", "result": {"exc_message": ["expired"]}}"#).state == .expired)
        #expect(try read(#"{"status": "REVOKED", "result": {"exc_message": ["revoked"]}}"#).state == .cancelled)
        #expect(try read(#"{"status": "STARTED", "result": {}}"#).progress == nil)
        let progress = try read(#"{"status": "PROGRESS", "result": {"current": 3, "total": 4, "what": "x"}}"#).progress
        #expect(progress?.fraction == 0.75 && progress?.details?["what"] == "x")
        let failure = try read(#"{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": "text"}}"#).failure
        #expect(failure?.type == "E" && failure?.message == "text")
        for bad in ["", "{", "[]", "{}", "null", "\u{0}celery-compressed\u{0}zlib\u{0}x"] {
            #expect(StoredResult(Array(bad.utf8)) == nil, "\(bad)")
        }
    }

    @Test("the outcome of a later attempt is looked at after one second and after ten, and once at the end")
    func lateRetries() {
        let outcome = SettlingStep.StoredMeta(key: "k", seconds: 60, value: [1, 2, 3])
        let late = Box(LateRetries())
        late.with({ $0.note(outcome, at: 0) })
        #expect(!late.with({ $0.isDue(at: 999_999) }) && late.with({ $0.due(at: 999_999) }).isEmpty)
        #expect(late.with({ $0.isDue(at: 1_000_000) }) && late.with({ $0.due(at: 1_000_000) }).map(\.key) == ["k"])
        #expect(!late.with({ $0.isDue(at: 9_999_999) }))
        #expect(late.with({ $0.due(at: 10_000_000) }).count == 1)
        #expect(!late.with({ $0.isDue(at: .max / 2) }), "two looks, and no more")
        late.with({ $0.note(outcome, at: 0) })
        #expect(late.with({ $0.due(at: 5, isLast: true) }).count == 1)
    }

    @Test("outcomes take no more memory than they may")
    func boundedRetries() {
        let late = Box(LateRetries())
        for _ in 0..<40 {
            late.with({
                $0.note(
                    SettlingStep.StoredMeta(key: "k", seconds: 1, value: [UInt8](repeating: 0, count: 1 << 20)), at: 0)
            })
        }
        #expect(late.with({ $0.due(at: 1_000_000) }).count == 16)
    }
}
