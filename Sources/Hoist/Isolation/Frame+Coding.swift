#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

// The members that every job needs are written one by one; the rest is JSON.

extension ChildCommand {
    func encoded() -> [UInt8] {
        switch self {
        case .perform(let call):
            var frame = FrameWriter(kind: 1, reserving: call.envelope.count + 200)
            frame.unsigned(call.run)
            frame.text(call.jobID)
            frame.text(call.jobName)
            frame.text(call.queue)
            frame.integer(Int64(call.attempt))
            frame.integer(Int64(call.lostWorkers))
            frame.optional(call.limits.time?.inMicroseconds)
            frame.optional(call.limits.heartbeat?.inMicroseconds)
            frame.optional(call.limits.memory.map { Int64($0.bytes) })
            frame.data(call.envelope)
            return frame.finished()
        case .cancel(let run, let reason):
            var frame = FrameWriter(kind: 2)
            frame.unsigned(run)
            frame.byte(reason.code)
            return frame.finished()
        case .reply(let id, let reply):
            var frame = FrameWriter(kind: 3)
            frame.unsigned(id)
            reply.write(to: &frame)
            return frame.finished()
        case .update(let id, let record):
            var frame = FrameWriter(kind: 4)
            frame.unsigned(id)
            frame.byte(record == nil ? 0 : 1)
            if let record { frame.json(record) }
            return frame.finished()
        case .stop: return FrameWriter(kind: 5).finished()
        }
    }

    init(_ bytes: ArraySlice<UInt8>) throws(WireError) {
        var frame = FrameReader(bytes)
        switch try frame.byte() {
        case 1:
            self = .perform(
                IsolatedCall(
                    run: try frame.unsigned(), jobID: try frame.text(), jobName: try frame.text(),
                    queue: try frame.text(),
                    attempt: Int(try frame.integer()), lostWorkers: Int(try frame.integer()),
                    limits: RunLimits(
                        time: try frame.optional().map { .microseconds($0) },
                        heartbeat: try frame.optional().map { .microseconds($0) },
                        memory: try frame.optional().map { ByteCount(bytes: Int(clamping: $0)) }),
                    envelope: try frame.data()))
        case 2: self = .cancel(try frame.unsigned(), JobContext.CancellationReason(code: try frame.byte()))
        case 3: self = .reply(try frame.unsigned(), try ChildReply(&frame))
        case 4: self = .update(try frame.unsigned(), try frame.byte() == 0 ? nil : try frame.json(JobRecord.self))
        case 5: self = .stop
        case let kind: throw WireError("no command has the number \(kind)")
        }
        try frame.end()
    }
}

extension ChildReport {
    func encoded() -> [UInt8] {
        switch self {
        case .ready: return FrameWriter(kind: 1).finished()
        case .finished(let result):
            var frame = FrameWriter(kind: 2)
            frame.unsigned(result.run)
            frame.integer(result.cpu)
            frame.integer(result.wall)
            frame.optional(result.peakMemory.map(Int64.init))
            frame.integer(Int64(result.memory))
            frame.byte(result.hasDescendants ? 1 : 0)
            frame.texts(result.children)
            result.outcome.write(to: &frame)
            return frame.finished()
        case .progress(let run, let progress):
            var frame = FrameWriter(kind: 3)
            frame.unsigned(run)
            frame.json(progress)
            return frame.finished()
        case .sign(let run):
            var frame = FrameWriter(kind: 4)
            frame.unsigned(run)
            return frame.finished()
        case .log(let run, let line):
            var frame = FrameWriter(kind: 5)
            frame.unsigned(run)
            frame.json(line)
            return frame.finished()
        case .request(let id, let request):
            var frame = FrameWriter(kind: 6)
            frame.unsigned(id)
            request.write(to: &frame)
            return frame.finished()
        }
    }

    init(_ bytes: ArraySlice<UInt8>) throws(WireError) {
        var frame = FrameReader(bytes)
        switch try frame.byte() {
        case 1: self = .ready
        case 2:
            var result = IsolatedResult(run: try frame.unsigned(), outcome: .cancelled)
            // Clamped: sums with the numbers of a broken child must not overflow.
            result.cpu = try frame.integer().clamped(to: 0...1 << 50)
            result.wall = try frame.integer().clamped(to: 0...1 << 50)
            result.peakMemory = try frame.optional().map { Int($0.clamped(to: 0...1 << 60)) }
            result.memory = Int(try frame.integer().clamped(to: 0...1 << 60))
            result.hasDescendants = try frame.byte() == 1
            result.children = try frame.texts()
            result.outcome = try Outcome(&frame)
            self = .finished(result)
        case 3: self = .progress(try frame.unsigned(), try frame.json(JobProgress.self))
        case 4: self = .sign(try frame.unsigned())
        case 5: self = .log(try frame.unsigned(), try frame.json(LogLine.self))
        case 6: self = .request(try frame.unsigned(), try ChildRequest(&frame))
        case let kind: throw WireError("no report has the number \(kind)")
        }
        try frame.end()
    }
}

extension Outcome {
    fileprivate func write(to frame: inout FrameWriter) {
        switch self {
        case .succeeded(let output, let retention):
            frame.byte(1)
            frame.data(output)
            frame.optional(retention.map { Int64(bitPattern: $0.bitPattern) })
        case .failed(let failure):
            frame.byte(2)
            frame.json(failure)
        case .retry(let date, let failure, let change):
            frame.byte(3)
            frame.integer(date.microsecondsSinceEpoch)
            frame.json(failure)
            frame.byte(change == nil ? 0 : 1)
            if let change {
                frame.json(WireValue.array(change.arguments.positional))
                frame.json(change.arguments.keyword)
            }
        case .snoozed(let date, let closesQueue):
            frame.byte(closesQueue ? 5 : 4)
            frame.integer(date.microsecondsSinceEpoch)
        case .refused(let date, let failure):
            frame.byte(10)
            frame.integer(date.microsecondsSinceEpoch)
            frame.json(failure)
        case .cancelled: frame.byte(6)
        case .expired: frame.byte(7)
        case .handedBack: frame.byte(8)
        case .notStarted: frame.byte(9)
        }
    }

    fileprivate init(_ frame: inout FrameReader) throws(WireError) {
        switch try frame.byte() {
        case 1:
            let output = try frame.data()
            // The output is stored unchanged, so it must be JSON.
            _ = try JSONParser.parse(output)
            let retention = try frame.optional().map { Double(bitPattern: UInt64(bitPattern: $0)) }
            guard retention?.isFinite ?? true else { throw WireError("a retention is no number") }
            self = .succeeded(output: output, retention: retention)
        case 2: self = .failed(try frame.json(JobFailure.self))
        case 3:
            let date = Date(microsecondsSinceEpoch: try frame.integer())
            let failure = try frame.json(JobFailure.self)
            var change: MessageChange?
            if try frame.byte() == 1 {
                let positional = try frame.json(WireValue.self).arrayValue ?? []
                change = .arguments(Arguments(positional: positional, keyword: try frame.json(WireObject.self)))
            }
            self = .retry(at: date, failure, change: change)
        case 4: self = .snoozed(until: Date(microsecondsSinceEpoch: try frame.integer()))
        case 5: self = .snoozed(until: Date(microsecondsSinceEpoch: try frame.integer()), closesQueue: true)
        case 6: self = .cancelled
        case 7: self = .expired
        case 8: self = .handedBack
        case 9: self = .notStarted
        case 10:
            let date = Date(microsecondsSinceEpoch: try frame.integer())
            self = .refused(until: date, try frame.json(JobFailure.self))
        case let kind: throw WireError("no outcome has the number \(kind)")
        }
    }
}

extension ChildRequest {
    fileprivate func write(to frame: inout FrameWriter) {
        switch self {
        case .publish(let messages, let limit):
            frame.byte(1)
            frame.integer(limit.inMicroseconds)
            frame.integer(Int64(messages.count))
            for message in messages { frame.data(message.encodedEnvelope()) }
        case .record(let id):
            frame.byte(2)
            frame.text(id)
        case .log(let id):
            frame.byte(3)
            frame.text(id)
        case .cancel(let id):
            frame.byte(4)
            frame.text(id)
        case .forget(let id):
            frame.byte(5)
            frame.text(id)
        case .watch(let id):
            frame.byte(6)
            frame.text(id)
        case .unwatch(let id):
            frame.byte(7)
            frame.unsigned(id)
        case .queues(let exchange, let topic):
            frame.byte(8)
            frame.texts([exchange, topic])
        case .bind(let queue, let exchange, let pattern, let isUndone):
            frame.byte(isUndone ? 10 : 9)
            frame.texts([queue, exchange, pattern])
        case .broadcast(let message, let channel):
            frame.byte(11)
            frame.text(channel)
            frame.data(message.encodedEnvelope())
        }
    }

    fileprivate init(_ frame: inout FrameReader) throws(WireError) {
        switch try frame.byte() {
        case 1:
            let limit = Duration.microseconds(try frame.integer())
            var messages: [Message] = []
            for _ in 0..<(try frame.integer().clamped(to: 0...100_000)) {
                messages.append(try Message(envelope: try frame.data()))
            }
            self = .publish(messages, within: limit)
        case 2: self = .record(try frame.text())
        case 3: self = .log(try frame.text())
        case 4: self = .cancel(try frame.text())
        case 5: self = .forget(try frame.text())
        case 6: self = .watch(try frame.text())
        case 7: self = .unwatch(try frame.unsigned())
        case 8:
            let names = try Self.names(&frame, 2)
            self = .queues(exchange: names[0], topic: names[1])
        case let kind where kind == 9 || kind == 10:
            let names = try Self.names(&frame, 3)
            self = .bind(queue: names[0], exchange: names[1], pattern: names[2], isUndone: kind == 10)
        case 11:
            let channel = try frame.text()
            self = .broadcast(try Message(envelope: try frame.data()), channel: channel)
        case let kind: throw WireError("no request has the number \(kind)")
        }
    }

    private static func names(_ frame: inout FrameReader, _ count: Int) throws(WireError) -> [String] {
        let names = try frame.texts()
        guard names.count == count else { throw WireError("a request has the wrong number of names") }
        return names
    }
}

extension ChildReply {
    fileprivate func write(to frame: inout FrameWriter) {
        switch self {
        case .published(let results):
            frame.byte(1)
            frame.integer(Int64(results.count))
            for result in results {
                switch result {
                case .enqueued: frame.texts(["+"])
                case .alreadyEnqueued: frame.texts(["="])
                case .keyHeld(let id): frame.texts(["held", id])
                case .replaced(let id): frame.texts(["replaced", id])
                }
            }
        case .record(let record):
            frame.byte(2)
            frame.byte(record == nil ? 0 : 1)
            if let record { frame.json(record) }
        case .log(let log):
            frame.byte(3)
            frame.byte(log == nil ? 0 : 1)
            if let log { frame.json(log) }
        case .cancelled(let result):
            frame.byte(4)
            frame.byte(Self.cancelResults.firstIndex(of: result).map(UInt8.init) ?? 0)
        case .bool(let value):
            frame.byte(5)
            frame.byte(value ? 1 : 0)
        case .number(let value):
            frame.byte(6)
            frame.integer(Int64(value))
        case .names(let names):
            frame.byte(7)
            frame.texts(names)
        case .done: frame.byte(8)
        case .failed(let error):
            frame.byte(9)
            frame.texts(["\(error.code)", error.cause.map { "\(error.message) (\($0))" } ?? error.message])
            frame.byte(error.isRetrySafe ? 1 : 0)
        }
    }

    private static let cancelResults: [CancelResult] = [.unknown, .cancelled, .requested, .alreadyEnded]

    fileprivate init(_ frame: inout FrameReader) throws(WireError) {
        switch try frame.byte() {
        case 1:
            var results: [PublishResult] = []
            for _ in 0..<max(0, try frame.integer()) {
                let words = try frame.texts()
                switch words.first {
                case "held" where words.count == 2: results.append(.keyHeld(by: words[1]))
                case "replaced" where words.count == 2: results.append(.replaced(words[1]))
                case "=": results.append(.alreadyEnqueued)
                default: results.append(.enqueued)
                }
            }
            self = .published(results)
        case 2: self = .record(try frame.byte() == 0 ? nil : try frame.json(JobRecord.self))
        case 3: self = .log(try frame.byte() == 0 ? nil : try frame.json(JobLog.self))
        case 4: self = .cancelled(Self.cancelResults[Int(try frame.byte()) % Self.cancelResults.count])
        case 5: self = .bool(try frame.byte() == 1)
        case 6: self = .number(Int(try frame.integer()))
        case 7: self = .names(try frame.texts())
        case 8: self = .done
        case 9:
            let words = try frame.texts()
            guard words.count == 2 else { throw WireError("an error has the wrong number of words") }
            self = .failed(
                BackendError(BackendError.Code(named: words[0]), words[1], isRetrySafe: try frame.byte() == 1))
        case let kind: throw WireError("no reply has the number \(kind)")
        }
    }
}

extension JobContext.CancellationReason {
    private static let coded: [Self] = [.requested, .timeLimit, .noProgress, .shutdown, .leaseLost]

    fileprivate var code: UInt8 { UInt8(Self.coded.firstIndex(of: self) ?? 0) }

    fileprivate init(code: UInt8) { self = Self.coded[min(Int(code), Self.coded.count - 1)] }
}
