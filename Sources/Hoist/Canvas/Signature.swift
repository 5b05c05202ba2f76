/// A task of Celery's with its arguments and options, or a chain, group or chord of such: what a message asks for
/// behind its own task.
///
/// The signature keeps its members as they came, so that members without a meaning here travel on unchanged. Source:
/// Celery's message protocol 2, the embed part of the body.
struct Signature: Sendable, Equatable {
    enum Kind: String { case task, chain, group, chord }

    private(set) var members: WireValue.Object

    /// - Throws: ``WireError`` when the value is no signature. Nested signatures are checked when they are opened.
    init(_ value: WireValue) throws(WireError) {
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

    var wireValue: WireValue { .object(members) }
    var task: String { members["task"]?.stringValue ?? "" }
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

    /// Adds errbacks: to the members of a group, which has none itself, else to the signature.
    mutating func addErrbacks(_ errbacks: [Signature]) throws(WireError) {
        guard kind == .group else { return try add(errbacks, to: "link_error") }
        var members = try parts()
        for index in members.indices { try members[index].add(errbacks, to: "link_error") }
        var keyword = keywordArguments
        keyword["tasks"] = .array(members.map(\.wireValue))
        self.members["kwargs"] = .object(keyword)
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
