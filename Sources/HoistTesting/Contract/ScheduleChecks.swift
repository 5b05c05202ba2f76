import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension BackendContract {
    /// How schedules are kept.
    static let schedules: [Check] = [
        Check("a schedule is written if it is as it was read", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            let first = try await bench.written(bench.scheduleWrite("s", expected: nil, body: "one"))
            try bench.expect(
                try await keeping.write([bench.scheduleWrite("s", expected: nil, body: "two")]) == [.changed],
                "there is one already")
            let second = try await bench.written(bench.scheduleWrite("s", expected: first, body: "three"))
            try bench.expect(second > first, "the revision grows")
            try bench.expect(
                try await keeping.write([bench.scheduleWrite("s", expected: first, body: "four")]) == [.changed],
                "it is no longer as it was")
            let stored = try await keeping.schedules(["s", "other"])
            try bench.expect(stored.map(\.id) == ["s"] && stored[0].body == Array("three".utf8), "\(stored)")
            try bench.expect(stored[0].revision == second && stored[0].wake == nil, "\(stored)")
        },
        Check("what a write starts is enqueued with it, or not at all", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            var write = bench.scheduleWrite("s", expected: nil)
            write.messages = [bench.message("a"), bench.message("b")]
            let result = try await keeping.write([write])
            guard case .written(_, [.enqueued, .enqueued])? = result.first else {
                throw ContractViolation(description: "\(result)")
            }
            write.messages = [bench.message("c")]
            try bench.expect(try await keeping.write([write]) == [.changed], "the same write again")
            try await bench.join("w", lease: .seconds(1000))
            try bench.expect(
                try await Set(bench.claim("w").map(\.jobID)) == ["a", "b"], "what was refused starts nothing")
        },
        Check("of writes at once one succeeds", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            let revision = try await bench.written(bench.scheduleWrite("s", expected: nil))
            let results = try await withThrowingTaskGroup(of: ScheduleWriteResult.self) { group in
                for number in 0..<20 {
                    var write = bench.scheduleWrite("s", expected: revision)
                    write.messages = [bench.message("job-\(number)")]
                    group.addTask { [write] in try await keeping.write([write])[0] }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            try bench.expect(results.count { $0 == .changed } == 19, "\(results)")
            try await bench.join("w", lease: .seconds(1000))
            try bench.expect(try await bench.claim("w", 20).count == 1, "one job")
        },
        Check("a run that is known is not enqueued again", needs: [.knownIDs], parts: [.schedules]) { bench in
            try await bench.publish(bench.message("a"))
            var write = bench.scheduleWrite("s", expected: nil)
            write.messages = [bench.message("a")]
            let result = try await bench.schedules().write([write])
            guard case .written(_, [.alreadyEnqueued])? = result.first else {
                throw ContractViolation(description: "\(result)")
            }
        },
        Check("a write waits for the clock of the backend", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            let now = try await keeping.dueSchedules(in: [""], limit: 1).now
            let revision = try await bench.written(bench.scheduleWrite("s", expected: nil, wake: now + 60))
            var write = bench.scheduleWrite("s", expected: revision)
            write.notBefore = now + 60
            write.messages = [bench.message("a")]
            try bench.expect(try await keeping.write([write]) == [.early], "early")
            try bench.expect(try await keeping.dueSchedules(in: [""], limit: 10).due.isEmpty, "nothing is due")
            try bench.advance(by: .seconds(61))
            try bench.expect(try await keeping.dueSchedules(in: [""], limit: 10).due.map(\.id) == ["s"], "due")
            _ = try await bench.written(write)
            let left = try await keeping.dueSchedules(in: [""], limit: 10)
            try bench.expect(left.due.isEmpty && left.next == nil, "\(left)")
        },
        Check("due schedules come by their time, those of a group alone", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            let now = try await keeping.dueSchedules(in: [], limit: 1).now
            for (id, group, seconds) in [
                ("late", "", -5.0), ("later", "", -1), ("next", "", 100), ("other", "app", -3), ("soon", "app", 50),
            ] {
                _ = try await bench.written(bench.scheduleWrite(id, expected: nil, group: group, wake: now + seconds))
            }
            let mine = try await keeping.dueSchedules(in: [""], limit: 10)
            try bench.expect(mine.due.map(\.id) == ["late", "later"], "\(mine.due.map(\.id))")
            try bench.expect(
                abs((mine.next ?? now).timeIntervalSince(now + 100)) < 0.001, "\(String(describing: mine.next))")
            let both = try await keeping.dueSchedules(in: ["", "app"], limit: 10)
            try bench.expect(both.due.map(\.id) == ["late", "other", "later"], "\(both.due.map(\.id))")
            try bench.expect(
                abs((both.next ?? now).timeIntervalSince(now + 50)) < 0.001, "\(String(describing: both.next))")
            try bench.expect(try await keeping.dueSchedules(in: [""], limit: 1).due.map(\.id) == ["late"], "a limit")
            // A schedule that moves to another group is in that one alone.
            let revision = try await keeping.schedules(["late"])[0].revision
            _ = try await bench.written(bench.scheduleWrite("late", expected: revision, group: "app", wake: now - 9))
            try bench.expect(
                try await keeping.dueSchedules(in: [""], limit: 10).due.map(\.id) == ["later"], "it has moved")
        },
        Check("schedules are listed in pages, in the order of their ids", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            let ids = ["a", "B", "ä", "z", "a b", "日本"]
            for id in ids { _ = try await bench.written(bench.scheduleWrite(id, expected: nil)) }
            let sorted = ids.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
            var (found, last): ([String], String) = ([], "")
            while true {
                let page = try await keeping.schedules(after: last, limit: 2)
                guard let end = page.last else { break }
                found += page.map(\.id)
                last = end.id
            }
            try bench.expect(found == sorted, "\(found)")
        },
        Check("the history keeps the newest entries, and goes with the schedule", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            var revision: Int64?
            for round in 0..<3 {
                var write = bench.scheduleWrite("s", expected: revision)
                write.entries = (0..<60).map { Array("\(round * 60 + $0)".utf8) }
                revision = try await bench.written(write)
            }
            let history = try await keeping.scheduleHistory(of: "s").map { String(decoding: $0, as: UTF8.self) }
            try bench.expect(
                history == (80..<180).reversed().map(String.init), "\(history.count), \(history.prefix(3))")
            _ = try await bench.written(ScheduleWrite(id: "s", expected: revision, content: nil))
            try bench.expect(try await keeping.scheduleHistory(of: "s").isEmpty, "gone")
            try bench.expect(try await keeping.schedules(["s"]).isEmpty, "gone")
            try bench.expect(try await keeping.schedules(after: "", limit: 10).isEmpty, "not listed")
            let again = try await bench.written(bench.scheduleWrite("s", expected: nil))
            try bench.expect(again > revision ?? 0, "no revision is used twice")
        },
        Check(
            "a full queue leaves the schedule as it is; a paused one takes its jobs",
            parts: [.schedules, .queueControl]
        ) {
            bench in
            let (keeping, control) = (try bench.schedules(), try bench.control())
            try await control.limit(queue: "default", to: 1)
            var write = bench.scheduleWrite("s", expected: nil, body: "one")
            write.messages = [bench.message("a"), bench.message("b")]
            try bench.expect(try await keeping.write([write]) == [.full(queue: "default")], "full")
            try bench.expect(try await keeping.schedules(["s"]).isEmpty, "nothing was stored")
            try await control.limit(queue: "default", to: nil)
            try await control.pause(queue: "default")
            _ = try await bench.written(write)
            try bench.expect(try await bench.state("a") == .waiting, "it waits")
        },
        Check("what is too long is refused, and nothing of the call is written", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            for bad in [
                bench.scheduleWrite("", expected: nil),
                bench.scheduleWrite(String(repeating: "x", count: 201), expected: nil),
                bench.scheduleWrite("big", expected: nil, body: String(repeating: "x", count: (1 << 20) + 1)),
            ] {
                do {
                    _ = try await keeping.write([bench.scheduleWrite("good", expected: nil), bad])
                    throw ContractViolation(description: "it was taken")
                } catch let error as BackendError {
                    try bench.expect(error.code == .misuse, "\(error)")
                }
            }
            try bench.expect(try await keeping.schedules(after: "", limit: 10).isEmpty, "nothing")
        },
        Check("thousands are written and found", parts: [.schedules]) { bench in
            let keeping = try bench.schedules()
            let now = try await keeping.dueSchedules(in: [], limit: 1).now
            let writes = (0..<2000).map { bench.scheduleWrite("s\($0)", expected: nil, wake: now - Double($0)) }
            let results = try await keeping.write(writes)
            try bench.expect(results.allSatisfy { if case .written = $0 { true } else { false } }, "all are written")
            let due = try await keeping.dueSchedules(in: [""], limit: 500).due
            try bench.expect(due.count == 500 && due[0].id == "s1999", "\(due.count)")
        },
    ]
}

extension ContractBench {
    func schedules() throws -> any ScheduleKeeping {
        guard let schedules = backend.schedules else { throw ContractViolation(description: "no schedules") }
        return schedules
    }

    func scheduleWrite(
        _ id: String, expected: Int64?, group: String = "", body: String = "body", wake: Date? = nil
    ) -> ScheduleWrite {
        ScheduleWrite(
            id: id, expected: expected, content: .init(group: group, wake: wake, body: Array(body.utf8)))
    }

    /// The revision of a write that must succeed.
    func written(_ write: ScheduleWrite) async throws -> Int64 {
        let results = try await schedules().write([write])
        guard case .written(let revision, _)? = results.first else {
            throw ContractViolation(description: "the schedule \(write.id) is not written: \(results)")
        }
        return revision
    }
}
