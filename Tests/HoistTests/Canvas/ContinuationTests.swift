import Foundation
import Hoist
import Testing

/// What a Swift worker starts behind a task, compared message by message with what Celery's worker started.
@Suite("What follows a task of Celery's", .timeLimit(.minutes(3)))
struct ContinuationTests {
    private static let rules = ContinuationRules(origin: "test@here") { _ in "celery" }
    private static let now = Date(timeIntervalSince1970: 1_795_000_000)
    private static let failure = JobFailure(kind: .raised, type: "ValueError", message: "boom")

    private func continuation(_ message: Message) throws -> Continuation? {
        try Continuation(message.decodedBody().embed, message.headers)
    }

    @Test(
        "each step starts what Celery's worker starts",
        arguments: [
            "chain3", "chain_failing_first", "link", "link_two", "link_immutable", "link_chain", "link_group",
            "link_mixed", "link_on_chain", "link_error_oldstyle", "link_error_unregistered", "link_error_group",
            "retry_in_chain", "chain_ends_group", "stamped_link", "priority_worker", "chain_link_error_in_middle",
        ])
    func captured(_ name: String) throws {
        let capture = try CanvasCapture(name)
        var compared = 0
        for message in capture.messages {
            guard let result = capture.result(of: message.id) else { continue }
            // Of a job that was retried the last attempt counts.
            if message.id != capture.messages.last(where: { $0.id == message.id })?.id { continue }
            let finished = FinishedJob(message.headers)
            let continuation = try continuation(message)
            #expect(continuation?.refusal(finished, Self.rules) == nil)
            let expected = capture.started(by: message.id)
            if result["status"] == "SUCCESS" {
                let output = result["result"] ?? .null
                let actual = try continuation?.afterSuccess(output, of: finished, Self.rules, now: Self.now)
                let children = result["children"]?.arrayValue ?? []
                #expect(
                    Self.form(actual?.messages ?? [], children: actual?.children ?? [])
                        == Self.form(expected, children: children))
            } else {
                let actual = continuation?.afterFailure(Self.failure, of: finished, Self.rules, now: Self.now)
                #expect(Self.form(actual?.messages ?? []) == Self.form(expected))
                // Everything that was never published failed with it.
                let published = Set(capture.messages.map(\.id))
                let unpublished = capture.results.compactMap { $0["task_id"]?.stringValue }
                    .filter { !published.contains($0) }
                #expect(Set(actual?.ends.map(\.record.id) ?? []) == Set(unpublished))
                #expect(
                    actual?.ends.allSatisfy { $0.record.state == .failed && $0.record.failure == Self.failure } ?? true)
            }
            compared += 1
        }
        #expect(compared > 0)
    }

    @Test("a new-style errback is published with the failed id, for only its own worker can call it otherwise")
    func newStyleErrback() throws {
        let message = try CanvasCapture("link_error_newstyle").messages[0]
        let followUps = try #require(try continuation(message)).afterFailure(
            Self.failure, of: FinishedJob(message.headers), Self.rules, now: Self.now)
        #expect(followUps.messages.map(\.jobName) == ["wire.onerr"])
        #expect(try followUps.messages[0].decodedBody().arguments.positional == [.string(message.id)])
    }

    @Test("an errback that is a chain runs, with the failed id in front; Celery's worker drops it")
    func errbackChain() throws {
        let message = try CanvasCapture("link_error_chain").messages[0]
        let followUps = try #require(try continuation(message)).afterFailure(
            Self.failure, of: FinishedJob(message.headers), Self.rules, now: Self.now)
        #expect(followUps.messages.map(\.jobName) == ["wire.onerr_old"])
        #expect(followUps.messages[0].body.firstRange(of: Array("wire.ident".utf8)) != nil, "the rest travels along")
    }

    @Test(
        "a chord is refused before the job runs where nobody counts its members",
        arguments: [("chord_simple", 0), ("chain_group_middle", 0), ("link_chord", 0), ("chain_group_middle", 1)])
    func chords(_ name: String, _ index: Int) throws {
        let message = try CanvasCapture(name).messages[index]
        let finished = FinishedJob(message.headers)
        let continuation = try #require(try continuation(message))
        #expect(continuation.refusal(finished, Self.rules) == nil)
        let refusal = try #require(continuation.refusal(finished, Self.rules, countsGroups: false))
        #expect(refusal.kind == .unsupported && refusal.message.contains("chord"))
    }

    @Test("a chord that only a later step starts is no affair of this one")
    func laterChord() throws {
        let capture = try CanvasCapture("chain_group_middle")
        // One step is put in front of the captured chain.
        let first = capture.messages[0]
        var embed = try #require(try first.decodedBody().embed.objectValue)
        var chain = try #require(embed["chain"]?.arrayValue)
        chain.append(["task": "wire.add", "args": [1], "kwargs": [:], "options": [:], "subtask_type": nil])
        embed["chain"] = .array(chain)
        let continuation = try #require(try Continuation(.object(embed), first.headers))
        let finished = FinishedJob(first.headers)
        #expect(continuation.refusal(finished, Self.rules, countsGroups: false) == nil)
        let followUps = try continuation.afterSuccess(2, of: finished, Self.rules, now: Self.now)
        #expect(
            try followUps.messages.first?.decodedBody().embed["chain"]?.arrayValue?.count == 2, "the rest travels on")
    }

    @Test("a plain member of a group follows nothing, and runs")
    func groupMember() throws {
        let member = try CanvasCapture("chain_ends_group").messages[1]
        #expect(member.headers.group != nil)
        #expect(try continuation(member) == nil)
    }

    @Test("the rest of a chain is cancelled with a step that is cancelled, and no errback runs")
    func cancelled() throws {
        let message = try CanvasCapture("chain_failing_first").messages[0]
        let followUps = try #require(try continuation(message)).afterCancellation(
            .expired, of: FinishedJob(message.headers), Self.rules, now: Self.now)
        #expect(followUps.messages.isEmpty)
        #expect(followUps.ends.map(\.record.state) == [.expired, .expired])
    }

    @Test("options of a signature become headers and properties")
    func options() throws {
        let embed: WireValue = [
            "callbacks": [
                [
                    "task": "t", "args": [], "kwargs": ["k": 1], "subtask_type": nil, "immutable": false,
                    "options": [
                        "queue": "special", "priority": 4, "countdown": 30, "expires": 60.5, "time_limit": 9,
                        "soft_time_limit": 8, "shadow": "shown", "ignore_result": true, "headers": ["tenant": "acme"],
                        "add_to_parent": false, "root_id": nil,
                    ],
                ]
            ]
        ]
        let headers = MessageHeaders(task: "first", id: "1")
        let followUps = try #require(try Continuation(embed, headers)).afterSuccess(
            5, of: FinishedJob(headers), Self.rules, now: Self.now)
        let message = try #require(followUps.messages.first)
        #expect(message.queue == "special" && message.properties.priority == 4)
        #expect(message.headers.eta == Self.now.addingTimeInterval(30))
        #expect(message.headers.expires == Self.now.addingTimeInterval(60.5))
        #expect(message.headers.hardTimeLimit == 9 && message.headers.softTimeLimit == 8)
        #expect(message.headers.shadow == "shown" && message.headers.ignoresResult == true)
        #expect(message.headers.custom == ["tenant": "acme"])
        #expect(message.headers.rootID == "1" && message.headers.parentID == "1")
        #expect(message.headers.argumentsText == "(5,)" && message.headers.keywordArgumentsText == "{'k': 1}")
    }

    @Test("a step that would be larger than a worker reads fails the job, and is not dropped")
    func tooLarge() throws {
        let message = try CanvasCapture("chain3").messages[0]
        let output = WireValue.string(String(repeating: "x", count: WireLimits.default.maximumBytes))
        let continuation = try #require(try continuation(message))
        let failure = #expect(throws: JobFailure.self) {
            try continuation.afterSuccess(output, of: FinishedJob(message.headers), Self.rules, now: Self.now)
        }
        #expect(failure?.kind == .notEncodable && failure?.message.contains("wire.mul") == true)
    }

    @Test(
        "what is no signature is an error, never a trap",
        arguments: [
            #"{"callbacks": [1]}"#, #"{"chain": [{}]}"#, #"{"errbacks": "x"}"#, #"{"chord": {"task": 1}}"#,
            #"{"callbacks": [{"task": ""}]}"#, #"{"chain": [null]}"#,
        ])
    func malformed(_ text: String) throws {
        let embed = try JSONParser.parse(Array(text.utf8))
        #expect(throws: WireError.self) { try Continuation(embed, MessageHeaders(task: "t", id: "1")) }
    }

    // MARK: - Comparing

    /// Messages and children in a text that is the same for the same workflow: ids by the order of their appearance.
    private static func form(_ messages: [Message], children: [WireValue] = []) -> String {
        let messages = messages.map { message -> WireValue in
            let body = try? message.decodedBody()
            return [
                "task": .string(message.jobName), "id": .string(message.id), "queue": .string(message.queue),
                "group": message.headers.group.map(WireValue.string) ?? .null,
                "index": message.headers.groupIndex.map(WireValue.integer) ?? .null,
                "root": message.headers.rootID.map(WireValue.string) ?? .null,
                "parent": message.headers.parentID.map(WireValue.string) ?? .null,
                "args": .array(body?.arguments.positional ?? []), "kwargs": .object(body?.arguments.keyword ?? [:]),
                "priority": .integer(Int64(message.properties.priority ?? 0)), "stamps": message.headers.stamps,
                "embed": pruned(body?.embed ?? .null),
            ]
        }
        return anonymous(WireValue.array(messages + children).description)
    }

    /// Without what is null, and without the queue in which a Python client waits for replies.
    private static func pruned(_ value: WireValue) -> WireValue {
        switch value {
        case .array(let elements): return .array(elements.map(pruned))
        case .object(let members):
            let kept = members.filter { $0.key != "reply_to" && !$0.value.isNull }.sorted { $0.key < $1.key }
            return .object(WireValue.Object(kept.map { ($0.key, pruned($0.value)) }))
        default: return value
        }
    }

    private static func anonymous(_ text: String) -> String {
        var names: [Substring: String] = [:]
        var result = ""
        var rest = text[...]
        let pattern = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/
        while let match = rest.firstMatch(of: pattern) {
            result += rest[..<match.range.lowerBound]
            let name = names[match.output] ?? "id\(names.count)"
            names[match.output] = name
            result += name
            rest = rest[match.range.upperBound...]
        }
        return result + rest
    }
}
