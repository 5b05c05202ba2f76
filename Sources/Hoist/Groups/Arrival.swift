/// The end of one member of a group, as the group counts it.
///
/// A group is a number of jobs whose ends are counted: the header of a chord, or the elements of a workflow's `forEach`.
/// The last member to end starts what the group was made for.
public struct Arrival: Sendable {
    /// The id of the group.
    public var group: String
    public var part: GroupPart
    /// For how long the group is kept from now on while it is open; nil for as long as results are.
    public var lifetime: Duration?
    /// Decides what the completed group starts.
    package var completion: any GroupCompletion

    package init(_ part: GroupPart, in group: String, lifetime: Duration? = nil, completion: any GroupCompletion) {
        self.group = group
        self.part = part
        self.lifetime = lifetime
        self.completion = completion
    }
}

/// What became of one member of a group.
public struct GroupPart: Sendable {
    /// The id of the member. It counts once, however often it arrives.
    public var member: JobID
    /// The place of its output among those of the group; nil places it behind all others.
    public var index: Int64?
    /// A state that has ended.
    public var state: JobState
    /// The output of a member that succeeded, else null.
    public var output: WireValue
    /// Why the member failed; nil for another state.
    public var failure: JobFailure?

    public init(
        member: JobID, index: Int64?, state: JobState, output: WireValue = .null, failure: JobFailure? = nil
    ) {
        self.member = member
        self.index = index
        self.state = state
        self.output = output
        self.failure = failure
    }
}

/// What a group starts when its last member has ended. Pure.
package protocol GroupCompletion: Sendable {
    /// - Parameters:
    ///   - parts: the members, in the order of their places.
    ///   - outputs: the outputs, in the shape in which the group hands them on.
    func followUps(of parts: [GroupPart], outputs: [WireValue], now: JobDate) -> FollowUps
}

/// A group that begins.
public struct GroupOpening: Sendable, Equatable {
    /// The id of the group.
    public var group: String
    /// How many members are counted before it is complete.
    public var size: Int
    /// The group as a tree of ids, where outputs are to be handed on as such a tree: the header of a chord with a
    /// member that is itself a group. Nil for a plain list.
    public var tree: WireValue?
    /// For how long the group is kept while nobody arrives; nil for as long as results are.
    public var lifetime: Duration?

    public init(_ group: String, size: Int, tree: WireValue? = nil, lifetime: Duration? = nil) {
        self.group = group
        self.size = size
        self.tree = tree
        self.lifetime = lifetime
    }
}

/// What counting an arrival has come to.
public enum ArrivalResult: Sendable {
    /// Others have still to end, or the group is not known, or somebody else completes it.
    case counted
    /// The member is the last: the caller publishes what follows, and closes the group with it.
    case completes(parts: [GroupPart], outputs: [WireValue])
}

/// How far a group has come.
public struct GroupProgress: Sendable, Equatable {
    /// The members that have ended.
    public var ended: Int
    /// All members; nil once the group is over, or where its size is not known yet.
    public var size: Int?

    public init(ended: Int, size: Int?) {
        self.ended = ended
        self.size = size
    }
}

/// Counts the members of groups that have ended: a part of a backend.
///
/// Members of a group are counted where the settlement of a job carries its ``Arrival``, see ``FollowUps/arrivals``. The
/// methods here are for those who begin a group, or look at one.
public protocol GroupCounting: Sendable {
    /// Begins groups, before their members are published. A group that has begun keeps what it has counted.
    /// - Throws: ``BackendError``; opening again is safe.
    func open(_ groups: [GroupOpening]) async throws

    /// Has a group wait for further members. Called before they are published.
    /// - Throws: ``BackendError``; where ``BackendError/isRetrySafe`` is false, the group may have grown, and growing it
    ///   twice would have it wait for ever.
    func grow(_ group: String, by count: Int) async throws

    /// Counts an arrival, for a broker that does not store results itself. A member that completed a group completes it
    /// again when it comes again before ``close(_:)``, for the first time may have come to nothing.
    /// - Throws: ``BackendError``; counting again is safe.
    func count(_ arrival: Arrival) async throws -> ArrivalResult

    /// Closes groups whose follow-ups are published.
    /// - Throws: ``BackendError``; closing again is safe.
    func close(_ groups: [GroupClosing]) async throws

    /// How far a group has come; nil when it is not known.
    /// - Throws: ``BackendError``; asking again is safe.
    func progress(of group: String) async throws -> GroupProgress?

    /// What has been counted for a member; nil for nothing.
    /// - Throws: ``BackendError``; asking again is safe.
    func part(of member: JobID, index: Int64?, in group: String) async throws -> GroupPart?
}

/// The end of a group.
public struct GroupClosing: Sendable, Equatable {
    public var group: String
    /// Whether what the group was made for could not start, because a member did not succeed.
    public var hasFailed: Bool
    /// The member that completed it.
    public var member: JobID

    public init(_ group: String, hasFailed: Bool, by member: JobID) {
        self.group = group
        self.hasFailed = hasFailed
        self.member = member
    }
}

extension [GroupPart] {
    /// The outputs in the shape of a tree of ids; a member that is not there stands as null.
    /// - Parameters:
    ///   - tree: as ``GroupOpening/tree``.
    ///   - others: outputs of jobs that are no members of the group.
    package func outputs(in tree: WireValue, others: [JobID: WireValue] = [:]) -> [WireValue] {
        let known = Dictionary(map { ($0.member, $0.output) }) { first, _ in first }.merging(others) { own, _ in own }
        func outputs(_ members: [WireValue], depth: Int) -> [WireValue] {
            members.map { member in
                if let inner = member.arrayValue?.last?.arrayValue, depth < 64 {
                    return .array(outputs(inner, depth: depth + 1))
                }
                return known[member.arrayValue?.first?.arrayValue?.first?.stringValue ?? ""] ?? .null
            }
        }
        return outputs(tree.arrayValue?.last?.arrayValue ?? [], depth: 0)
    }
}

extension GroupOpening {
    /// The ids at the ends of a tree.
    package static func members(of tree: WireValue, depth: Int = 0) -> [JobID] {
        guard let members = tree.arrayValue?.last?.arrayValue, depth < 64 else {
            return tree.arrayValue?.first?.arrayValue?.first?.stringValue.map { [$0] } ?? []
        }
        return members.flatMap { Self.members(of: $0, depth: depth + 1) }
    }
}
