import Synchronization

/// A doorbell for each job that somebody follows, for as long as somebody does.
package struct JobBells: Sendable {
    private struct Bell {
        weak var doorbell: Doorbell?
    }

    private var bells: [JobID: Bell] = [:]
    private var sizeAtCleaning = 64

    package init() {}

    /// The bell of one job, shared by all who follow it.
    package mutating func bell(of id: JobID) -> Doorbell {
        if let bell = bells[id]?.doorbell { return bell }
        if bells.count >= sizeAtCleaning { clean() }
        let bell = Doorbell()
        bells[id] = Bell(doorbell: bell)
        return bell
    }

    /// nil when nobody follows the job.
    package subscript(_ id: JobID) -> Doorbell? { bells[id]?.doorbell }

    /// The jobs that are followed.
    package var followed: [JobID: Doorbell] { bells.compactMapValues(\.doorbell) }

    /// Forgets jobs that nobody follows any more.
    package mutating func clean() {
        bells = bells.filter { $0.value.doorbell != nil }
        sizeAtCleaning = max(64, bells.count * 2)
    }

    package mutating func remove(_ id: JobID) { bells[id] = nil }
}

/// Tells those who follow jobs when theirs may have changed, where the backend only knows that something has: one look
/// for all of them, so that a thousand who wait for a thousand jobs do not each read a thousand times.
package final class JobFollower: Sendable {
    package typealias Revisions = @Sendable ([JobID]) async throws -> [JobID: Int64]

    private struct State {
        var bells = JobBells()
        var revisions: [JobID: Int64] = [:]
        var listening: ScheduledCall?
        var isLooking = false
        var mustLookAgain = false
    }

    /// So few are told of every change, for a look would only cost time.
    private static let few = 8

    private let changes: Doorbell
    private let state = Mutex(State())

    /// - Parameter changes: rung when any record may have changed.
    package init(changes: Doorbell) { self.changes = changes }

    /// - Parameter revisions: finds those of jobs that there are.
    package func doorbell(of id: JobID, lookingWith revisions: @escaping Revisions) -> Doorbell {
        state.withLock { state in
            if state.listening == nil { state.listening = changes.listen { [weak self] in self?.changed(revisions) } }
            return state.bells.bell(of: id)
        }
    }

    private func changed(_ revisions: @escaping Revisions) {
        let (bells, mustLook) = state.withLock { state -> ([Doorbell], Bool) in
            let followed = state.bells.followed
            if followed.isEmpty {
                state.listening?.cancel()
                (state.listening, state.revisions) = (nil, [:])
                state.bells.clean()
            }
            // What they saw meanwhile is not known here.
            if followed.count <= Self.few {
                state.revisions = [:]
                return (Array(followed.values), false)
            }
            guard !state.isLooking else {
                state.mustLookAgain = true
                return ([], false)
            }
            state.isLooking = true
            return ([], true)
        }
        for bell in bells { bell.ring() }
        // The bell is rung on any thread.
        if mustLook { runBeside { await self.look(revisions) } }
    }

    private func look(_ revisions: Revisions) async {
        while true {
            let followed = state.withLock { state in
                state.mustLookAgain = false
                return state.bells.followed
            }
            // Where it cannot be told everybody looks for himself.
            let found = try? await revisions(Array(followed.keys))
            let isOver = state.withLock { state in
                let known = state.revisions
                state.revisions = found ?? [:]
                for (id, bell) in followed where found == nil || known[id] == nil || known[id] != found?[id] {
                    bell.ring()
                }
                if state.mustLookAgain { return false }
                state.isLooking = false
                return true
            }
            if isOver { return }
        }
    }
}
