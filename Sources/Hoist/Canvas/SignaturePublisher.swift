#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The job that a continuation follows.
package struct FinishedJob: Sendable {
    package var id: JobID
    package var rootID: JobID?
    package var groupID: String?
    package var groupIndex: Int64?

    package init(_ headers: MessageHeaders) {
        id = headers.id
        rootID = headers.rootID
        groupID = headers.group
        groupIndex = headers.groupIndex
        step = headers.hoist.step
    }

    /// The step of a workflow that it is, which a job that takes its place becomes.
    var step: WorkflowStep?

    /// A job that never ran, as that whose errbacks run; or none, for what a client begins.
    init(id: JobID) {
        self.id = id
        rootID = id
    }

    /// The root of what it starts; nil where a client begins.
    var root: JobID? { id.isEmpty ? nil : rootID ?? id }
}

/// How the messages that continue a workflow are addressed.
package struct ContinuationRules: Sendable {
    /// The queue of a task whose signature names none.
    package var queue: @Sendable (_ jobName: String) -> String
    /// The program that publishes, as a header of the messages.
    package var origin: String

    package init(origin: String, queue: @escaping @Sendable (_ jobName: String) -> String) {
        self.origin = origin
        self.queue = queue
    }

    /// For a job that is given up without a worker at hand.
    package static let standard = ContinuationRules(origin: ProcessIdentity.name) { _ in celeryQueue }
    /// Celery's own default, `task_default_queue`.
    package static let celeryQueue = "celery"
}

/// Turns signatures into messages, as Celery's worker does behind a task: ids, parent, root, arguments, options.
///
/// Pure: it collects messages and publishes nothing. Source: `celery/canvas.py`, version 5.7.
struct SignaturePublisher {
    private let finished: FinishedJob
    private let rules: ContinuationRules
    private let now: Date
    private(set) var messages: [Message] = []
    /// The groups of the chords that were started.
    private(set) var openings: [GroupOpening] = []
    private var depth = 0
    /// All that was started.
    var followUps: FollowUps {
        var followUps = FollowUps()
        (followUps.messages, followUps.openings) = (messages, openings)
        return followUps
    }

    init(_ finished: FinishedJob, rules: ContinuationRules, now: Date) {
        self.finished = finished
        self.rules = rules
        self.now = now
    }

    /// A place in a group.
    struct Place {
        var group: String
        /// Nil behind all others.
        var index: Int64?
        /// What the group starts when it is complete, where it is the header of a chord.
        var chord: WireValue?
    }

    /// The most messages out of one continuation, and the deepest nesting of a canvas.
    static let (messageLimit, depthLimit) = (100_000, 64)

    /// What was started, as a result's `children` names it.
    typealias Tree = WireValue

    /// Publishes a signature.
    /// - Parameters:
    ///   - signature: a task, chain or group.
    ///   - arguments: put in front of the arguments of a signature that is not immutable.
    ///   - chain: the steps that follow, the last one first; nil when the signature is no step of a chain.
    ///   - place: the place in a group that the signature's end takes.
    /// - Returns: what was started.
    /// - Throws: ``JobFailure`` `.undecodable` for what is no signature, and `.notEncodable` for a message that would be
    ///   larger than a worker reads.
    mutating func apply(
        _ signature: Signature, _ arguments: [WireValue], chain: [Signature]? = nil, in place: Place? = nil
    ) throws(JobFailure) -> Tree {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.depthLimit else {
            throw JobFailure(
                kind: .undecodable, type: "WireError",
                message: "what is to follow the task is nested more than \(Self.depthLimit) deep")
        }
        // What is behind the body of a chord travels with the body.
        var chain = chain
        if chain == nil, signature.kind != .task {
            let behind = try Self.reading { () throws(WireError) in try Signature.list(signature["chain"]) }
            if !behind.isEmpty { chain = behind }
        }
        switch signature.kind {
        case .task: return FollowUps.child(try publish(signature, arguments, chain: chain, in: place))
        case .group: return try apply(group: signature, arguments, chain: chain, in: place)
        case .chain: return try apply(chain: signature, arguments, before: chain ?? [], in: place).first
        case .chord: return try apply(chord: signature, arguments, chain: chain, in: place)
        }
    }

    /// Publishes what a client or a handler begins.
    /// - Returns: its result as Celery names it: that of the last step of a chain, and that of the body of a chord.
    mutating func begin(_ canvas: Signature) throws(JobFailure) -> Tree {
        switch canvas.kind {
        case .task, .group: return try apply(canvas, [])
        case .chain: return try apply(chain: canvas, [], before: [], in: nil).last
        case .chord:
            let body = try Self.reading { () throws(WireError) in try canvas.body() }
            guard let body else { return try apply(canvas, []) }
            let identified = body.identified(JobIdentifier.make())
            let header = try apply(canvas.with(body: identified), [])
            return [[.string(identified.id ?? ""), header], nil]
        }
    }

    /// Publishes tasks, groups and chains as the members of one group.
    /// - Parameters:
    ///   - options: those of the group, which each member gets.
    ///   - chord: what the group starts when it is complete; nil when it is no header.
    mutating func apply(
        members: [Signature], as id: String, _ arguments: [WireValue], options: WireValue.Object = [:],
        chain: [Signature]? = nil, chord: WireValue? = nil
    ) throws(JobFailure) -> Tree {
        var trees: [Tree] = []
        for (index, member) in try Self.flattened(members).enumerated() {
            var member = member
            for (option, value) in options
            where !value.isNull && (!Self.ownOptions.contains(option) || Self.memberOptions.contains(option)) {
                member[option] = value
            }
            let place = Place(group: id, index: Int64(index), chord: chord)
            switch member.kind {
            case .chain: trees.append(try apply(chain: member, arguments, before: chain ?? [], in: place).last)
            case .chord:
                // What a chord hands on is the output of its body.
                let body = try Self.reading { () throws(WireError) in try member.body() }
                let end = body?.identified(JobIdentifier.make())
                let header = try apply(end.map(member.with(body:)) ?? member, arguments, chain: chain, in: place)
                trees.append([[.string(end?.id ?? ""), header], nil])
            case .task, .group: trees.append(try apply(member, arguments, chain: chain, in: place))
            }
        }
        return [[.string(id), nil], .array(trees)]
    }

    private mutating func apply(
        group: Signature, _ arguments: [WireValue], chain: [Signature]?, in place: Place?
    ) throws(JobFailure) -> Tree {
        let members = try Self.reading { () throws(WireError) in try group.parts() }
        return try apply(
            members: members, as: group["group_id"]?.stringValue ?? group.id ?? place?.group ?? JobIdentifier.make(),
            group.isImmutable ? [] : arguments, options: group.options, chain: chain,
            chord: group["chord"] ?? place?.chord)
    }

    /// Publishes the header of a chord. Its body runs on the outputs of the header, and the steps of a chain behind the
    /// chord follow the body.
    private mutating func apply(
        chord: Signature, _ arguments: [WireValue], chain: [Signature]?, in place: Place?
    ) throws(JobFailure) -> Tree {
        let (header, members, stored) = try Self.reading { () throws(WireError) in
            (try chord.headerGroup(), try chord.header(), try chord.body())
        }
        guard let stored else {
            throw JobFailure(
                kind: .undecodable, type: "WireError", message: "a chord that is to follow the task has no body")
        }
        // A chord made of a group and the step behind it has the id of that step, and so has the next one inside it.
        let group = header?.id ?? (chord.id == stored.id ? nil : chord.id) ?? JobIdentifier.make()
        var body = stored.identified(JobIdentifier.make())
        for (option, value) in chord.options
        where !value.isNull && !Self.ownOptions.contains(option) && !Self.headerOptions.contains(option) {
            body[option] = value
        }
        let root = chord["root_id"]?.stringValue ?? finished.root
        if body["root_id"] == nil, let root { body["root_id"] = .string(root) }
        body = try Self.reading { () throws(WireError) in
            try body.placed(
                in: chord["group_id"]?.stringValue ?? place?.group,
                at: chord["group_index"]?.integerValue ?? place?.index, chord: chord["chord"] ?? place?.chord)
        }
        if body["group_id"] == nil { body["group_id"] = .string(group) }
        if let chain, !chain.isEmpty || body["chain"] == nil {
            let own = body["chain"]?.arrayValue ?? []
            body["chain"] = .array(chain.map(\.wireValue) + own)
        }
        try Self.reading { () throws(WireError) in
            try body.add(try Signature.list(chord["link"]), to: "link")
            try body.addErrbacks(try Signature.list(chord["link_error"]))
        }
        var delays: WireValue.Object = header?.options ?? [:]
        for option in Self.headerOptions { if let value = chord[option] { delays[option] = value } }
        let given = chord.isImmutable ? [] : arguments
        let flat = try Self.flattened(members)
        guard !flat.isEmpty else {
            _ = try apply(body, [[]])
            return [[.string(group), nil], []]
        }
        let size = try Self.reading { () throws(WireError) in
            var sum = 0
            for member in flat { sum += try member.count }
            return sum
        }
        let tree = try apply(members: flat, as: group, given, options: delays, chord: body.wireValue)
        // Outputs are handed on as a tree where a member hands on several.
        let isNested = tree.arrayValue?.last?.arrayValue?.contains { $0.arrayValue?.last?.arrayValue != nil } ?? false
        openings.append(GroupOpening(group, size: size, tree: isNested ? .some(tree) : .none))
        return tree
    }

    /// Options of a chord that its header gets, and its body does not.
    private static let headerOptions: Set = ["countdown", "eta"]

    /// What the errbacks of a job start. One that cannot be published does not keep the others from it.
    static func errbacks(
        _ errbacks: [Signature], of failed: FinishedJob, _ rules: ContinuationRules, now: Date
    ) -> FollowUps {
        let publishable = errbacks.filter { errback in
            var trial = SignaturePublisher(failed, rules: rules, now: now)
            return (try? trial.apply(members: [errback], as: "", [])) != nil
        }
        guard !publishable.isEmpty else { return FollowUps() }
        var publisher = SignaturePublisher(failed, rules: rules, now: now)
        _ = try? publisher.apply(members: publishable, as: JobIdentifier.make(), [.string(failed.id)])
        return publisher.followUps
    }

    /// Options that belong to a group or chain itself and are not those of its members.
    private static let ownOptions: Set = [
        "task_id", "group_id", "group_index", "root_id", "parent_id", "chord", "link", "link_error", "chain",
        "reply_to",
        "add_to_parent",
    ]

    /// Options of a group itself that take the place of those of its members.
    private static let memberOptions: Set = ["link", "link_error"]

    /// The members of a group, with nested groups opened. Celery opens them with their members in reverse.
    private static func flattened(_ members: [Signature]) throws(JobFailure) -> [Signature] {
        let isAlone = members.count == 1
        var flat: [Signature] = []
        for member in members {
            guard member.kind == .group else {
                flat.append(member)
                continue
            }
            let inner = try flattened(try reading { () throws(WireError) in try member.parts() })
            flat += isAlone ? inner : inner.reversed()
        }
        return flat
    }

    private mutating func apply(
        chain: Signature, _ arguments: [WireValue], before following: [Signature], in place: Place?
    ) throws(JobFailure) -> (first: Tree, last: Tree) {
        var prepared = try Self.reading { () throws(WireError) in
            try ChainSteps.prepared(
                chain, root: finished.root, place: place)
        }
        guard var first = prepared.popLast() else { return ([], []) }
        for (option, value) in chain.options where !value.isNull && !Self.ownOptions.contains(option) {
            first[option] = value
        }
        if first.kind == .chord, let body = try Self.reading({ () throws(WireError) in try first.body() }) {
            first = first.with(body: body.identified(JobIdentifier.make()))
        }
        // A step that is a member of the group by its own options needs no other place.
        let tree = try apply(first, chain.isImmutable ? [] : arguments, chain: following + prepared)
        // The end of a chain names the steps before it as its parents.
        let last = prepared.reversed().reduce(Self.result(of: first, started: tree)) { before, step in
            Self.result(of: step, after: before)
        }
        return (tree, last)
    }

    /// The result of a step that was started, as Celery names it: that of a chord is the output of its body.
    private static func result(of step: Signature, started tree: Tree) -> Tree {
        guard step.kind == .chord, let body = try? step.body() else { return tree }
        return [[.string(body.id ?? ""), tree], nil]
    }

    /// The result of a step that is still to be started.
    private static func result(of step: Signature, after before: Tree) -> Tree {
        switch step.kind {
        case .task, .chain: [[.string(step.id ?? ""), before], nil]
        case .chord: [[.string((try? step.body())?.id ?? step.id ?? ""), before], nil]
        case .group:
            [
                [.string(step.id ?? ""), before],
                .array(((try? step.parts()) ?? []).map { [[.string($0.id ?? ""), nil], nil] }),
            ]
        }
    }

    static func reading<T>(_ body: () throws(WireError) -> T) throws(JobFailure) -> T {
        do { return try body() } catch {
            throw JobFailure(kind: .undecodable, type: "WireError", message: error.message)
        }
    }

    // MARK: - One message

    private mutating func publish(
        _ signature: Signature, _ arguments: [WireValue], chain: [Signature]?, in place: Place?
    ) throws(JobFailure) -> JobID {
        let id = signature.id ?? JobIdentifier.make()
        var headers = MessageHeaders(task: signature.task, id: id)
        headers.rootID = signature["root_id"]?.stringValue ?? finished.root ?? id
        headers.parentID = signature["parent_id"]?.stringValue ?? (finished.id.isEmpty ? nil : finished.id)
        // A job that takes the place of another is the step that the other was.
        if id == finished.id { headers.hoist.step = finished.step }
        headers.group = signature["group_id"]?.stringValue ?? place?.group
        headers.groupIndex = signature["group_index"]?.integerValue ?? place?.index
        guard messages.count < Self.messageLimit else {
            throw JobFailure(
                kind: .undecodable, type: "WireError",
                message: "more than \(Self.messageLimit) messages are to follow the task")
        }
        headers.eta = date(signature["eta"]) ?? signature["countdown"]?.doubleValue.map(after)
        headers.expires = date(signature["expires"]) ?? signature["expires"]?.doubleValue.map(after)
        headers.hardTimeLimit = signature["time_limit"]?.doubleValue
        headers.softTimeLimit = signature["soft_time_limit"]?.doubleValue
        headers.retries = Int((signature["retries"]?.integerValue ?? 0).clamped(to: 0...1_000_000_000))
        headers.shadow = signature["shadow"]?.stringValue
        headers.origin = signature["origin"]?.stringValue ?? rules.origin
        headers.ignoresResult = signature["ignore_result"]?.boolValue
        headers.replacedTaskNesting = signature["replaced_task_nesting"]?.integerValue ?? 0
        headers.hoist.enqueuedAt = now
        stamp(&headers, signature)
        for (key, value) in signature["headers"]?.objectValue ?? [:] { headers.custom[key] = value }
        let positional = signature.isImmutable ? signature.arguments : arguments + signature.arguments
        headers.argumentsText = ArgumentsText.positional(positional)
        headers.keywordArgumentsText = ArgumentsText.keyword(signature.keywordArguments, secret: [])
        let queue =
            signature["queue"]?.stringValue ?? signature["routing_key"]?.stringValue ?? rules.queue(signature.task)
        var properties = MessageProperties(routingKey: queue, deliveryTag: JobIdentifier.make())
        properties.correlationID = id
        properties.replyTo = signature["reply_to"]?.stringValue
        properties.priority = signature["priority"]?.integerValue.map { Int(clamping: $0) }
        let body = MessageBody(
            arguments: Arguments(positional: positional, keyword: signature.keywordArguments),
            embed: embed(signature, chain: chain, chord: place?.chord)
        ).encoded()
        do throws(WireError) {
            try headers.check()
            let limits = WireLimits(maximumBytes: (WireLimits.default.maximumBytes - 65_536) / 4 * 3)
            try limits.check(.array(positional), encodedAs: body)
        } catch {
            throw JobFailure(
                kind: .notEncodable, type: "WireError",
                message: "the message of \(signature.task), which follows the job, cannot be sent: \(error.message)")
        }
        messages.append(Message(headers: headers, properties: properties, body: body))
        return id
    }

    private func embed(_ signature: Signature, chain: [Signature]?, chord: WireValue?) -> WireValue {
        func list(_ option: String) -> WireValue {
            guard let value = signature[option] else { return nil }
            return value.arrayValue == nil ? [value] : value
        }
        return [
            "callbacks": list("link"), "errbacks": list("link_error"),
            "chain": chain.map { .array($0.map(\.wireValue)) } ?? list("chain"),
            "chord": signature["chord"] ?? chord ?? nil,
        ]
    }

    /// Stamps travel as options, each under its own name, and arrive as headers.
    private func stamp(_ headers: inout MessageHeaders, _ signature: Signature) {
        guard let names = signature["stamped_headers"]?.arrayValue else { return }
        headers.stampedHeaders = .array(names)
        var stamps: WireValue.Object = [:]
        for name in names.compactMap(\.stringValue) { if let value = signature[name] { stamps[name] = value } }
        headers.stamps = .object(stamps)
    }

    private func date(_ value: WireValue?) -> Date? {
        // Python's encoder writes a date as an object with its type, where it is no header.
        let text = value?.stringValue ?? value?["__value__"]?.stringValue
        return text.flatMap(WireTimestamp.date)
    }

    private func after(_ seconds: Double) -> Date {
        now.advanced(by: Duration(boundedSeconds: seconds.isFinite ? seconds : 0))
    }
}
