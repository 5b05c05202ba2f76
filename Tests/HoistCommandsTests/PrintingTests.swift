import Foundation
import Hoist
@testable import HoistCommands
import Logging
import ServiceLifecycle
import Testing

/// What people read on a terminal, of records that hold anything.
@Suite("Printing")
struct PrintingTests {
    private static let hostile = "\u{1B}]0;owned\u{7}\u{1B}[2J\u{202E}x\nforged line"

    private var record: JobRecord {
        var record = JobRecord(id: Self.hostile, name: Self.hostile, queue: Self.hostile, state: .failed)
        record.worker = Self.hostile
        record.argumentsText = Self.hostile
        record.progress = JobProgress(fraction: 0.5, message: Self.hostile)
        record.failure = JobFailure(kind: .raised, type: Self.hostile, message: Self.hostile)
        record.parentID = Self.hostile
        record.waitingReason = Self.hostile
        return record
    }

    @Test("nothing in a record controls the terminal")
    func escapes() {
        let worker = WorkerPresence(
            id: "w", name: Self.hostile, queues: [Self.hostile], jobNames: [Self.hostile], startedAt: Date())
        let texts = [
            Printing.job(record), Printing.jobs([record]), Printing.workers([worker]),
            Printing.queues([QueueStatistics(name: Self.hostile, waiting: 1)]),
            Printing.log(
                JobLog(attempt: 1, lines: [.init(time: Date(), source: Self.hostile, text: Self.hostile)]),
                after: JobLog(attempt: 0)),
        ]
        for text in texts {
            #expect(!text.unicodeScalars.contains { $0 != "\n" && $0.properties.generalCategory == .control })
            #expect(!text.contains("\u{202E}"))
            #expect(!text.split(separator: "\n").contains { $0.hasPrefix("forged line") })
        }
    }

    @Test("no number or date in a record ends the program", arguments: [1e300, -1e300, .infinity, .nan, 0] as [Double])
    func numbers(number: Double) throws {
        var record = record
        let date = Date(timeIntervalSince1970: number)
        (record.enqueuedAt, record.dueAt, record.startedAt, record.endedAt) = (date, date, date, date)
        record.progress?.fraction = number
        record.usage = ResourceUsage(cpuSeconds: number, wallSeconds: number, peakMemory: .max)
        record.state = .succeeded
        record.output = .double(number)
        #expect(!Printing.job(record).isEmpty && !Printing.jobs([record]).isEmpty)
        #expect((try? JSONSerialization.jsonObject(with: Data(JSONText.shown(record.wireValue).utf8))) != nil)
        let queue = QueueStatistics(name: "q", waiting: .max, oldestWaiting: date)
        #expect(!Printing.queues([queue]).isEmpty)
    }

    @Test("a queue on the command line may have colons in its name")
    func queueNames() throws {
        func queue(_ text: String) throws -> (String, Int?) {
            let subscription = try WorkerChoices.subscription(text)
            return (subscription.name, subscription.concurrency)
        }
        #expect(try queue("media") == ("media", nil))
        #expect(try queue("media:4") == ("media", 4))
        #expect(try queue("team:media") == ("team:media", nil))
        #expect(try queue("team:media:2") == ("team:media", 2))
        for bad in ["", ":2", "media:0", "media:-1"] {
            #expect(throws: (any Error).self) { try WorkerChoices.subscription(bad) }
        }
    }
}
