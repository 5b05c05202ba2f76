import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension BackendContract {
    static let groups: [Check] = [
        Check("the last member of a group starts what it was made for, in the order of their places", parts: [.groups])
        {
            bench in
            let (groups, held) = try await bench.begin(group: "g", members: ["a", "b", "c"])
            try await bench.end(held["b"], at: 1, of: "g")
            try await bench.end(held["a"], at: 0, of: "g")
            try bench.expect(try await groups.progress(of: "g") == GroupProgress(ended: 2, size: 3), "two have ended")
            try bench.expect(try await bench.claim("w").isEmpty, "and nothing is started")
            try await bench.end(held["c"], at: 2, of: "g")
            let started = try await bench.claim("w")
            try bench.expect(started.map(\.jobID) == ["body of g"], "the last starts the body: \(started.map(\.jobID))")
            let arguments = try started.first?.message?.decodedBody().arguments.positional
            try bench.expect(arguments == [["a", "b", "c"]], "with the outputs in order: \(arguments ?? [])")
        },
        Check("a member that comes again and again counts once, before the end and after it", parts: [.groups]) {
            bench in
            let (groups, held) = try await bench.begin(group: "g", members: ["a", "b"])
            for _ in 0..<100 { _ = try await groups.count(bench.arrival("a", at: 0, of: "g")) }
            try bench.expect(try await groups.progress(of: "g")?.ended == 1, "once")
            try await bench.end(held["b"], at: 1, of: "g")
            for member in 0..<100 {
                let result = try await groups.count(bench.arrival(member % 2 == 0 ? "a" : "b", at: 0, of: "g"))
                guard case .completes = result else { continue }
                throw ContractViolation(description: "a group that is over is completed again")
            }
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["body of g"], "one body")
        },
        Check("who dies after it completed a group completes it again", parts: [.groups]) { bench in
            let (groups, held) = try await bench.begin(group: "g", members: ["a", "b"])
            try await bench.end(held["a"], at: 0, of: "g")
            guard case .completes = try await groups.count(bench.arrival("b", at: 1, of: "g")) else {
                throw ContractViolation(description: "the last member does not complete the group")
            }
            // Its worker dies here; the next one settles the job.
            try bench.expect(
                try await groups.part(of: "b", index: 1, in: "g")?.output == "b", "it is known to have ended")
            if case .completes = try await groups.count(bench.arrival("a", at: 0, of: "g")) {
                throw ContractViolation(description: "two members complete one group")
            }
            try await bench.end(held["b"], at: 1, of: "g")
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["body of g"], "one body")
        },
        Check("what is refused counts for nothing", needs: [.fencing, .leases], parts: [.groups]) { bench in
            guard let groups = bench.backend.groups else { return }
            try await groups.open([GroupOpening("g", size: 2)])
            try await bench.publish(bench.message("a"))
            try await bench.join("slow")
            try await bench.join("other", lease: .seconds(1000))
            let stale = try await bench.claim("slow")[0]
            try bench.advance(by: .seconds(11))
            _ = try await bench.claim("other")
            var followUps = FollowUps()
            followUps.arrivals = [bench.arrival("a", at: 0, of: "g")]
            let outcome = Outcome.succeeded(output: Array("1".utf8), retention: nil)
            let result = try await bench.settle("slow", stale, outcome, followUps)
            try bench.expect(result.lost == ["a"], "refused")
            try bench.expect(try await groups.progress(of: "g")?.ended ?? 0 == 0, "and not counted")
        },
        Check("of the last two at the same moment one completes the group", parts: [.groups]) { bench in
            for round in 0..<20 {
                let group = "g\(round)"
                guard let groups = bench.backend.groups else { return }
                try await groups.open([GroupOpening(group, size: 2)])
                async let first = groups.count(bench.arrival("a", at: 0, of: group))
                async let second = groups.count(bench.arrival("b", at: 1, of: group))
                let completed = try await [first, second].count { if case .completes = $0 { true } else { false } }
                try bench.expect(completed == 1, "\(completed) complete the group")
            }
        },
        Check("a group that grows waits for more", parts: [.groups]) { bench in
            guard let groups = bench.backend.groups else { return }
            try await groups.open([GroupOpening("g", size: 1)])
            try await groups.grow("g", by: 1)
            guard case .counted = try await groups.count(bench.arrival("a", at: 0, of: "g")),
                case .completes = try await groups.count(bench.arrival("b", at: nil, of: "g"))
            else { throw ContractViolation(description: "the group does not wait for the member that was added") }
        },
        Check("a member that is cancelled or given up arrives", needs: [.leases, .storesResults], parts: [.groups]) {
            bench in
            guard let groups = bench.backend.groups else { return }
            try await groups.open([GroupOpening("g", size: 2)])
            let errback: WireValue = [
                "task": "job", "args": [], "kwargs": [:], "subtask_type": nil,
                "options": ["task_id": "errback", "queue": .string(bench.message("any").queue)],
            ]
            let body: WireValue = [
                "task": "job", "args": [], "kwargs": [:], "options": ["task_id": "body", "link_error": [errback]],
                "subtask_type": nil,
            ]
            func member(_ id: JobID, _ index: Int64) -> Message {
                bench.message(id) { message in
                    message.body = MessageBody(arguments: Arguments(), embed: ["chord": body]).encoded()
                    (message.headers.group, message.headers.groupIndex) = ("g", index)
                    message.headers.hoist.isAtMostOnce = true
                }
            }
            try await bench.publish(member("a", 0))
            try await bench.join("dead")
            _ = try await bench.claim("dead")
            try await bench.publish(member("b", 1))
            try bench.expect(try await bench.backend.cancel("b") == .cancelled, "cancelled while it waits")
            try bench.advance(by: .seconds(11))
            try await bench.join("w", lease: .seconds(1000))
            let next = try await bench.claim("w").map(\.jobID)
            try bench.expect(next == ["errback"], "the body fails, and its errback runs: \(next)")
            try bench.expect(try await bench.state("body") == .failed, "the body has failed")
        },
        Check("a group of many members", parts: [.groups]) { bench in
            guard let groups = bench.backend.groups else { return }
            try await groups.open([GroupOpening("g", size: 2000)])
            var completed: [GroupPart] = []
            for number in (0..<2000).reversed() {
                let arrival = bench.arrival("m\(number)", at: Int64(number), of: "g")
                if case .completes(let parts, _) = try await groups.count(arrival) { completed = parts }
            }
            try bench.expect(completed.map(\.member) == (0..<2000).map { "m\($0)" }, "all, in order")
        },
    ]

    static let workflows: [Check] = [
        Check("a workflow is stored once, and ends once", parts: [.workflows]) { bench in
            guard let keeping = bench.backend.workflows else { return }
            let stored = StoredWorkflow(id: "w", name: "first", createdAt: bench.now, body: Array("{}".utf8))
            try await keeping.begin(stored)
            var other = stored
            other.name = "second"
            try await keeping.begin(other)
            let read = try await keeping.workflow("w")
            try bench.expect(
                read?.name == "first" && read?.state == .running && read?.body == stored.body, "\(read as Any)")
            try await keeping.end(WorkflowEnd("w", .cancelled))
            try await keeping.end(WorkflowEnd("w", .succeeded))
            let ended = try await keeping.workflow("w")
            try bench.expect(
                ended?.state == .cancelled && ended?.endedAt != nil, "what is cancelled stays so: \(ended as Any)")
            try bench.expect(try await keeping.workflow("none") == nil, "another is not known")
        },
        Check("a failure may become a success, and workflows are listed from the newest", parts: [.workflows]) {
            bench in
            guard let keeping = bench.backend.workflows else { return }
            for (number, id) in ["old", "new"].enumerated() {
                let created = bench.now.addingTimeInterval(Double(number))
                try await keeping.begin(StoredWorkflow(id: id, name: "n", createdAt: created, body: Array("{}".utf8)))
            }
            try await keeping.end(WorkflowEnd("old", .failed))
            try await keeping.end(WorkflowEnd("old", .succeeded))
            let listed = try await keeping.workflows(limit: 10)
            try bench.expect(listed.map(\.id) == ["new", "old"], "\(listed.map(\.id))")
            try bench.expect(listed.last?.state == .succeeded, "it has succeeded after all")
            try bench.expect(try await keeping.workflows(limit: 1).map(\.id) == ["new"], "as many as asked for")
        },
    ]
}

/// Starts one job on all outputs.
private struct BodyOfGroup: GroupCompletion {
    let message: Message

    func followUps(of parts: [GroupPart], outputs: [WireValue], now: JobDate) -> FollowUps {
        var message = message
        message.body = MessageBody(arguments: Arguments(positional: [.array(outputs)])).encoded()
        var followUps = FollowUps()
        followUps.messages = [message]
        return followUps
    }
}

extension ContractBench {
    /// Publishes the members of a group, and joins as a worker.
    fileprivate func begin(
        group: String, members: [JobID]
    ) async throws -> (groups: any GroupCounting, held: [JobID: Delivery]) {
        guard let groups = backend.groups else { throw ContractViolation(description: "the backend counts no groups") }
        try await groups.open([GroupOpening(group, size: members.count)])
        for member in members { try await publish(message(member)) }
        try await join("w", lease: .seconds(1000))
        let deliveries = try await claim("w")
        return (groups, Dictionary(uniqueKeysWithValues: deliveries.map { ($0.jobID, $0) }))
    }

    fileprivate func arrival(_ member: JobID, at index: Int64?, of group: String) -> Arrival {
        Arrival(
            GroupPart(member: member, index: index, state: .succeeded, output: .string(member)), in: group,
            completion: BodyOfGroup(message: message("body of " + group)))
    }

    /// A member that the worker holds succeeds.
    fileprivate func end(_ delivery: Delivery?, at index: Int64, of group: String) async throws {
        guard let delivery else { throw ContractViolation(description: "a member was not delivered") }
        let member = delivery.jobID
        var followUps = FollowUps()
        followUps.arrivals = [arrival(member, at: index, of: group)]
        try await settle("w", delivery, .succeeded(output: Array("\"\(member)\"".utf8), retention: nil), followUps)
    }
}
