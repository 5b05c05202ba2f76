public import Hoist
import RESP

extension RedisBackend {
    /// Messages are read a part at a time, until there are so many bytes of them.
    private static let mostBytes = 4 << 20

    public func delayedJobs(queue: String, limit: Int) async throws -> [DelayedJob] {
        let key = keys.own + "delayed:" + queue
        let last = Int64(limit.clamped(to: 1...1000)) - 1
        let range = RESPCommand("ZRANGE", [.text(key), 0, .integer(last), "WITHSCORES"])
        let entries = Self.entries(try await send(range, doing: "list the delayed jobs of the queue \(queue)"))
        var jobs: [DelayedJob] = []
        var bytes = 0
        for part in stride(from: 0, to: entries.count, by: 50).map({ entries[$0..<min($0 + 50, entries.count)] }) {
            let read = RESPCommand("HMGET", [.text(key + ":jobs")] + part.map { .text($0.id) })
            let values = try await send(read, doing: "read delayed jobs of the queue \(queue)").elements ?? []
            for (entry, value) in zip(part, values) {
                // In front of the message is the list that it belongs to.
                guard let whole = value.bytes, let line = whole.firstIndex(of: UInt8(ascii: "\n")),
                    let message = try? Message(envelope: Array(whole[(line + 1)...]))
                else { continue }
                bytes += whole.count
                jobs.append(DelayedJob(message, queue: queue, due: entry.due))
            }
            if bytes > Self.mostBytes { break }
        }
        return jobs
    }

    /// Members with their scores: in pairs, or one after the other, as the protocol's version has it.
    private static func entries(_ reply: RESPValue) -> [(id: JobID, due: JobDate?)] {
        let elements = reply.elements ?? []
        func due(_ value: RESPValue?) -> JobDate? {
            value?.double.map { JobDate(microsecondsSinceEpoch: Int64(bounded: $0)) }
        }
        if elements.first?.elements != nil {
            return elements.compactMap { pair in
                guard let parts = pair.elements, let id = parts.first?.text else { return nil }
                return (id, due(parts.last))
            }
        }
        return stride(from: 0, to: elements.count - 1, by: 2).compactMap { index in
            elements[index].text.map { ($0, due(elements[index + 1])) }
        }
    }
}
