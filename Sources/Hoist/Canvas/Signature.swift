/// A task of Celery's with its arguments and options, or a chain, group or chord of such: what a message asks for
/// behind its own task, and what ``JobClient/enqueue(canvas:)`` publishes.
///
/// ```swift
/// let canvas = Signature.chord([.task("tasks.add", [1, 1]), .task("tasks.add", [2, 2])], .task("tasks.total"))
/// try await jobs.enqueue(canvas: canvas)
/// ```
/// The signature keeps its members as they came, so that members without a meaning here travel on unchanged. Source:
/// Celery's message protocol 2, the embed part of the body.
public struct Signature: Sendable, Hashable {
    enum Kind: String { case task, chain, group, chord }

    private(set) var members: WireValue.Object

    /// A task.
    /// - Parameters:
    ///   - name: the wire name.
    ///   - arguments: by place; the output of what comes before goes in front of them.
    ///   - keyword: by name.
    ///   - isImmutable: whether the task runs with these arguments alone.
    public static func task(
        _ name: String, _ arguments: [WireValue] = [], _ keyword: WireValue.Object = [:], isImmutable: Bool = false
    ) -> Signature {
        Signature(name, nil, arguments, keyword, isImmutable: isImmutable)
    }

    /// Steps one after the other, each with the output of the step before. A step behind a group runs once all of the
    /// group has succeeded.
    public static func chain(_ steps: [Signature]) -> Signature {
        Signature("celery.chain", .chain, [], ["tasks": .array(steps.map(\.wireValue))])
    }

    /// Members beside each other.
    public static func group(_ members: [Signature]) -> Signature {
        Signature("celery.group", .group, [], ["tasks": .array(members.map(\.wireValue))])
    }

    /// A header whose members run beside each other, and a body that runs on the list of their outputs.
    public static func chord(_ header: [Signature], _ body: Signature) -> Signature {
        chord(.group(header), then: body)
    }

    private init(
        _ name: String, _ kind: Kind?, _ arguments: [WireValue], _ keyword: WireValue.Object, isImmutable: Bool = false
    ) {
        members = [
            "task": .string(name), "args": .array(arguments), "kwargs": .object(keyword), "options": [:],
            "subtask_type": kind.map { .string($0.rawValue) } ?? .null, "immutable": .bool(isImmutable),
        ]
    }

    /// The signature with an option of Celery's, as `queue`, `priority`, `countdown` or `task_id`.
    public func with(_ option: String, _ value: WireValue) -> Signature {
        var copy = self
        copy[option] = value
        return copy
    }

    /// Runs when this one has succeeded, on its output.
    public func link(_ callback: Signature) -> Signature { adding(callback, to: "link") }

    /// Runs when this one has failed, on the id of the job that failed.
    public func linkError(_ errback: Signature) -> Signature { adding(errback, to: "link_error") }

    private func adding(_ signature: Signature, to option: String) -> Signature {
        var copy = self
        var list = self[option]?.arrayValue ?? self[option].map { [$0] } ?? []
        list.append(signature.wireValue)
        copy[option] = .array(list)
        return copy
    }

    /// A signature as it came over the wire.
    /// - Throws: ``WireError`` when the value is no signature. Nested signatures are checked when they are opened.
    public init(_ value: WireValue) throws(WireError) {
        guard case .object(let members) = value, members["task"]?.stringValue?.isEmpty == false else {
            throw WireError("what is to follow the task is no signature: it has no task name")
        }
        self.members = members
    }

    /// A signature, a list of signatures, or null for none.
    static func list(_ value: WireValue?) throws(WireError) -> [Signature] {
        switch value {
        case nil, .null?: return []
        case .array(let elements)?:
            var signatures: [Signature] = []
            for element in elements { signatures.append(try Signature(element)) }
            return signatures
        case let single?: return [try Signature(single)]
        }
    }

    /// The signature as it travels.
    public var wireValue: WireValue { .object(members) }
    /// The wire name.
    public var task: String { members["task"]?.stringValue ?? "" }
    var arguments: [WireValue] { members["args"]?.arrayValue ?? [] }
    var keywordArguments: WireValue.Object { members["kwargs"]?.objectValue ?? [:] }
    /// An immutable signature runs with its own arguments alone.
    var isImmutable: Bool { members["immutable"]?.boolValue ?? false }
    var kind: Kind { members["subtask_type"]?.stringValue.flatMap(Kind.init) ?? .task }

    /// An option; nil when it is missing or null.
    subscript(option: String) -> WireValue? {
        get { members["options"]?[option].flatMap { $0.isNull ? nil : $0 } }
        set {
            var options = members["options"]?.objectValue ?? [:]
            options[option] = newValue
            members["options"] = .object(options)
        }
    }

    var options: WireValue.Object { members["options"]?.objectValue ?? [:] }
    var id: JobID? { self["task_id"]?.stringValue }

    /// The signature with an id: the one it has, else `id`.
    func identified(_ id: @autoclosure () -> JobID) -> Signature {
        guard self.id == nil else { return self }
        var copy = self
        copy["task_id"] = .string(id())
        return copy
    }

    /// Adds signatures to an option that holds a list of them, unless they are there already.
    mutating func add(_ signatures: [Signature], to option: String) throws(WireError) {
        guard !signatures.isEmpty else { return }
        var list = try Signature.list(self[option])
        for signature in signatures where !list.contains(signature) { list.append(signature) }
        self[option] = .array(list.map(\.wireValue))
    }

    /// A chain or group with other parts.
    func with(parts: [Signature]) -> Signature {
        var copy = self
        var keyword = keywordArguments
        keyword["tasks"] = .array(parts.map(\.wireValue))
        copy.members["kwargs"] = .object(keyword)
        return copy
    }

    /// A chord with another body.
    func with(body: Signature) -> Signature {
        var copy = self
        var keyword = keywordArguments
        keyword["body"] = body.wireValue
        copy.members["kwargs"] = .object(keyword)
        return copy
    }

    /// The steps of a chain, or the members of a group.
    func parts() throws(WireError) -> [Signature] { try Signature.list(keywordArguments["tasks"]) }

    /// The members of a chord's header, which is a group or a list.
    func header() throws(WireError) -> [Signature] {
        guard let header = keywordArguments["header"] else { return [] }
        if case .object = header { return try Signature(header).parts() }
        return try Signature.list(header)
    }

    /// The header of a chord where it is a group, and no list.
    func headerGroup() throws(WireError) -> Signature? {
        guard let header = keywordArguments["header"], case .object = header else { return nil }
        return try Signature(header)
    }

    /// How many ends a chord waits for, of which this is a member of the header.
    var count: Int {
        get throws(WireError) {
            switch kind {
            case .task: return 1
            case .group:
                var sum = 0
                for part in try parts() { sum += try part.count }
                return sum
            case .chain:
                for step in try parts().reversed() {
                    let count = try step.count
                    if count > 0 { return count }
                }
                return 0
            case .chord: return try body()?.count ?? 0
            }
        }
    }

    /// The signature as a member of a group. The place is that of the job which ends it, as Celery's workers expect it: of
    /// the last step of a chain, of the body of a chord, of each member of a group.
    func placed(in group: String?, at index: Int64?, chord: WireValue?) throws(WireError) -> Signature {
        guard group != nil || index != nil || chord != nil else { return self }
        var copy = self
        switch kind {
        case .task:
            if let group, copy["group_id"] == nil { copy["group_id"] = .string(group) }
            if let index { copy["group_index"] = .integer(index) }
            if let chord, copy["chord"] == nil { copy["chord"] = chord }
        case .chain:
            var steps = try parts()
            guard let last = steps.last else { return self }
            steps[steps.count - 1] = try last.placed(in: group, at: index, chord: chord)
            return with(parts: steps)
        case .chord:
            guard let body = try body() else { return self }
            return with(body: try body.placed(in: group, at: index, chord: chord))
        case .group:
            var members: [Signature] = []
            for (place, member) in try parts().enumerated() {
                members.append(try member.placed(in: group, at: Int64(place), chord: chord))
            }
            return with(parts: members)
        }
        return copy
    }

    /// Adds errbacks: to the members of a group that has none itself, else to the signature.
    mutating func addErrbacks(_ errbacks: [Signature]) throws(WireError) {
        guard kind == .group, self["link_error"] == nil else { return try add(errbacks, to: "link_error") }
        var members = try parts()
        for index in members.indices { try members[index].add(errbacks, to: "link_error") }
        self = with(parts: members)
    }

    /// What a chord runs when its header is complete.
    func body() throws(WireError) -> Signature? { try Signature.list(keywordArguments["body"]).first }

    /// A group whose completion starts `body`.
    static func chord(_ header: Signature, then body: Signature) -> Signature {
        var chord = header
        chord.members = [
            "task": "celery.chord", "args": [],
            "kwargs": ["kwargs": [:], "header": header.wireValue, "body": body.wireValue],
            "options": .object(body.id.map { ["task_id": .string($0)] } ?? [:]), "subtask_type": "chord",
            "immutable": false,
        ]
        return chord
    }
}
