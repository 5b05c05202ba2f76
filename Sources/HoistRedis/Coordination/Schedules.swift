public import Hoist
import RESP

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension RedisBackend: ScheduleKeeping {
    public func write(_ writes: [ScheduleWrite]) async throws -> [ScheduleWriteResult] {
        for write in writes { try write.check() }
        guard !writes.isEmpty else { return [] }
        try await announce(writes.lazy.flatMap(\.messages).map(\.queue))
        let now = now
        let script = RedisScripts.writeSchedule
        // The first one loads the script where the server does not have it.
        let first = try await run(script, arguments(writes[0], now: now), doing: "write the schedule \(writes[0].id)")[
            0]
        var results = [try result(first, of: writes[0])]
        // The others in parts, so that a command of another program waits for a part alone.
        while results.count < writes.count {
            let part = writes[results.count..<min(results.count + 200, writes.count)]
            let calls = part.compactMap { script.call(keys: [keys.own], arguments: arguments($0, now: now)) }
            let replies = try await pipeline(calls, doing: "write schedules")
            results += try zip(part, replies).map { try result($1, of: $0) }
        }
        if writes.contains(where: { !$0.messages.isEmpty }) { workDoorbell.ring() }
        return results
    }

    public func schedules(_ ids: [String]) async throws -> [StoredSchedule] {
        let replies = try await pipeline(ids.map(read), doing: "read schedules")
        return zip(ids, replies).compactMap { stored($0, $1.elements ?? []) }
    }

    public func schedules(after id: String, limit: Int) async throws -> [StoredSchedule] {
        let begin = id.isEmpty ? "-" : "(" + id
        let found = try await send(
            RESPCommand(
                "ZRANGEBYLEX", [.text(keys.schedules), .text(begin), "+", "LIMIT", "0", .integer(Int64(limit))]),
            doing: "list schedules")
        return try await schedules((found.elements ?? []).compactMap(\.text))
    }

    public func dueSchedules(in groups: [String], limit: Int) async throws -> DueSchedules {
        let reply = try await run(
            RedisScripts.dueSchedules, [timeArgument, .integer(Int64(limit))] + groups.map { .text($0) },
            doing: "look for schedules that are due")[0]
        guard let parts = reply.elements, parts.count >= 2, let now = parts[0].text.flatMap({ Int64($0) }) else {
            throw unexpected(reply, "look for schedules that are due")
        }
        var due = stride(from: 2, to: parts.count - 4, by: 5).compactMap { index in
            parts[index].text.flatMap { stored($0, Array(parts[index + 1...index + 4])) }
        }
        due.sort { ($0.wake ?? .distantPast) < ($1.wake ?? .distantPast) }
        return DueSchedules(
            now: Date(microsecondsSinceEpoch: now), due: Array(due.prefix(limit)),
            next: parts[1].text.flatMap { Int64($0) }.map(Date.init(microsecondsSinceEpoch:)))
    }

    public func scheduleHistory(of id: String) async throws -> [[UInt8]] {
        let reply = try await send(
            RESPCommand("LRANGE", [.text(keys.scheduleHistory(id)), "0", "-1"]), doing: "read the history of a schedule"
        )
        return (reply.elements ?? []).compactMap(\.bytes)
    }

    private func read(_ id: String) -> RESPCommand {
        RESPCommand("HMGET", [.text(keys.schedule(id)), "group", "revision", "wake", "body"])
    }

    private func stored(_ id: String, _ fields: [RESPValue]) -> StoredSchedule? {
        guard fields.count == 4, let group = fields[0].text, let revision = fields[1].text.flatMap({ Int64($0) }),
            let body = fields[3].bytes
        else { return nil }
        return StoredSchedule(
            id: id, group: group, revision: revision,
            wake: fields[2].text.flatMap { Int64($0) }.map(Date.init(microsecondsSinceEpoch:)), body: body)
    }

    private func arguments(_ write: ScheduleWrite, now: Int64) -> [RESPArgument] {
        func time(_ date: Date?) -> RESPArgument { date.map { .integer($0.microsecondsSinceEpoch) } ?? "" }
        let entries = write.entries.suffix(ScheduleWrite.historyLimit)
        var arguments: [RESPArgument] = [
            timeArgument, .text(write.id), write.expected.map { .integer($0) } ?? "", time(write.notBefore),
            write.content == nil ? "" : "1", .text(write.content?.group ?? ""), time(write.content?.wake),
            .bytes(write.content?.body ?? []), .integer(Int64(ScheduleWrite.historyLimit)),
            .integer(Int64(entries.count)),
        ]
        arguments += entries.map { .bytes($0) }
        return arguments + (write.messages.isEmpty ? [] : enqueueArguments(write.messages, now: now))
    }

    private func result(_ reply: RESPValue, of write: ScheduleWrite) throws -> ScheduleWriteResult {
        let parts = reply.elements ?? []
        switch parts.first?.integer {
        case 0: return .changed
        case 1: return .early
        case 2: return .full(queue: parts.last?.text ?? "")
        case 3 where parts.count == 3:
            let outcomes = parts[2].elements ?? []
            guard let revision = parts[1].integer, outcomes.count == write.messages.count else { break }
            return .written(
                revision: revision,
                outcomes.map { outcome in
                    switch outcome {
                    case .integer(1): .enqueued
                    case .integer: .alreadyEnqueued
                    default: .keyHeld(by: outcome.text ?? "")
                    }
                })
        default: break
        }
        throw unexpected(reply, "write the schedule \(write.id)")
    }
}
