import CProcess
import Synchronization

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A process that this program starts, in a process group of its own. When it ends, all processes that it started end
/// too.
package final class SpawnedProcess: Sendable {
    /// How it ended.
    package struct Exit: Sendable, Equatable {
        /// The signal that killed it; nil when it ended by itself.
        package var signal: Int32?
        /// The status that it ended with.
        package var status: Int32
        /// Microseconds of processor time, with that of its own children.
        package var cpu: Int64

        package init(signal: Int32? = nil, status: Int32 = 0, cpu: Int64 = 0) {
            self.signal = signal
            self.status = status
            self.cpu = cpu
        }
    }

    package struct Program: Sendable {
        package var path: String
        package var arguments: [String]
        /// `NAME=VALUE`.
        package var environment: [String]

        package init(path: String, arguments: [String], environment: [String]) {
            self.path = path
            self.arguments = arguments
            self.environment = environment
        }
    }

    /// The variable that marks a process and all its descendants, whatever group or session they move to.
    static let markName = "HOIST_PROCESS"

    private struct State {
        /// nil before the process has started, and once the system may reuse the id.
        var id: pid_t?
        var pendingSignal: Int32?
    }

    private let state = Mutex(State())
    private let mark: String

    /// Its id; nil before it has started and after it was waited for.
    package var id: Int32? { state.withLock { $0.id } }

    /// Starts a program. A dedicated thread starts it and waits for its end: on Linux the death of the starting thread
    /// counts for a process as the death of its parent, and the dedicated thread dies with this program and not before.
    /// - Parameters:
    ///   - program: what to start.
    ///   - descriptors: what the program gets as 0, 1, 2 and, where there are four, 3; nil for /dev/null, and for no
    ///     descriptor 3. They are closed here, whatever happens.
    ///   - onExit: called once, from that thread, when the process is gone and its descendants are killed; with the
    ///     error when the process never started. When the thread cannot be started, it is called from a task.
    package init(
        _ program: Program, descriptors: [Int32?], onExit: @escaping @Sendable (Result<Exit, SpawnError>) -> Void
    ) {
        mark = JobIdentifier.make()
        let threadError = tryToStartThread(named: "hoist-process") { [self] in
            let code = spawn(program, descriptors.map { $0 ?? -1 })
            for descriptor in descriptors { if let descriptor { close(descriptor) } }
            onExit(code == 0 ? .success(awaitExit()) : .failure(SpawnError(path: program.path, code: code)))
        }
        guard threadError != 0 else { return }
        for descriptor in descriptors { if let descriptor { close(descriptor) } }
        // The caller may hold a lock.
        runBeside { onExit(.failure(SpawnError(path: program.path, code: threadError))) }
    }

    /// Sends a signal to the process group; before the process has started, as soon as it has.
    package func signalGroup(_ signal: Int32) {
        state.withLock { state in
            if let id = state.id {
                kill(-id, signal)
                // It has moved to another group.
                if getpgid(id) != id { kill(id, signal) }
            } else {
                state.pendingSignal = signal
            }
        }
    }

    /// Sends a signal to the process alone.
    package func signal(_ signal: Int32) {
        state.withLock { state in
            if let id = state.id { kill(id, signal) } else { state.pendingSignal = signal }
        }
    }

    private func spawn(_ program: Program, _ descriptors: [Int32]) -> Int32 {
        let arguments = CStrings([program.path] + program.arguments)
        // A process below another marked process carries the mark of that process as well.
        let inherited = program.environment.first { $0.hasPrefix(Self.markName + "=") }
        let environment = CStrings(
            [(inherited.map { $0 + "+" } ?? Self.markName + "=") + mark]
                + program.environment.filter { !$0.hasPrefix(Self.markName + "=") }
        )
        var four = descriptors + Array(repeating: -1, count: max(0, 4 - descriptors.count))
        return state.withLock { state in
            var id: pid_t = 0
            let code = hoist_spawn(program.path, arguments.pointers, environment.pointers, &four, &id)
            guard code == 0 else { return code }
            state.id = id
            if let signal = state.pendingSignal { kill(-id, signal) }
            return 0
        }
    }

    private func awaitExit() -> Exit {
        guard let id = state.withLock({ $0.id }) else { return Exit() }
        // The id is not reused before the process is reaped: the signal cannot reach a group of another program.
        if hoist_await_exit(id) == 0 { kill(-id, SIGKILL) }
        var found = hoist_exit()
        state.withLock { state in
            _ = hoist_reap(id, &found)
            state.id = nil
        }
        let strays = Descendants.end(markedBy: mark)
        Descendants.reap(group: id, and: strays)
        return Exit(signal: found.signal == 0 ? nil : found.signal, status: found.status, cpu: found.cpu_microseconds)
    }
}

/// A pipe that no other program inherits.
package enum ProcessPipe {
    /// - Parameter ends: set to the end for reading and the end for writing.
    /// - Returns: false when too many files are open.
    package static func open(_ ends: inout [Int32]) -> Bool { hoist_pipe(&ends) == 0 }
}

/// Dead processes that no parent waits for: the first process of a container inherits them.
package struct Orphanage: Sendable {
    private var seen: Set<pid_t> = []

    package init() {}

    /// - Returns: nil when this process does not inherit orphans.
    package static var ifNeeded: Orphanage? { getpid() == 1 ? Orphanage() : nil }

    /// Reaps the processes that were dead at the last call already: code that has started a process itself has waited
    /// for it by then.
    package mutating func reap() {
        let zombies = ProcessTable.zombies(of: getpid())
        for id in zombies.intersection(seen) { waitpid(id, nil, WNOHANG) }
        seen = zombies
    }
}

/// Ends a process with its parent, for a process that is of no use alone.
package enum ParentWatch {
    /// The variable of a process that ends with its parent: the parent's id.
    private static let variable = "HOIST_ENDS_WITH_PARENT"

    /// The entry in the environment of a process that is to end with this one.
    package static var environment: String { "\(variable)=\(getpid())" }

    /// Makes this process drain when its parent dies, if the variable asks for it. Linux.
    package static func begin() {
        guard let parent = getenv(variable).flatMap({ pid_t(String(cString: $0)) }), !WorkerChild.isChild else {
            return
        }
        // A process that such a worker starts itself inherits the variable, but has another parent.
        guard getppid() == parent || getppid() == 1 else { return }
        hoist_signal_at_parents_death(SIGTERM)
        if getppid() != parent { raise(SIGTERM) }
    }
}

/// A program could not be started. Trying again is safe.
package struct SpawnError: Error, CustomStringConvertible {
    package var path: String
    package var code: Int32
    package var description: String { "\(path) could not be started: \(String(cString: strerror(code)))" }
}

/// A list of strings as C takes it, ended by a null pointer.
private final class CStrings {
    let pointers: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
    private let count: Int

    init(_ strings: [String]) {
        count = strings.count
        pointers = .allocate(capacity: count + 1)
        for (index, string) in strings.enumerated() { pointers[index] = strdup(string) }
        pointers[count] = nil
    }

    deinit {
        for index in 0..<count { free(pointers[index]) }
        pointers.deallocate()
    }
}

/// The processes that a process has left behind: they may have moved to another group or session.
enum Descendants {
    /// Kills every process whose environment has this text.
    /// - Returns: their ids.
    static func end(markedBy mark: String) -> [pid_t] {
        #if os(Linux)
        var ended: Set<pid_t> = []
        var seen: Set<pid_t> = []
        let clock = SystemJobClock()
        let deadline = clock.uptime + 2_000_000
        var pause: UInt32 = 100
        // Until no process is left that may have started another since the last look, or that cannot be read yet.
        while clock.uptime < deadline {
            let ids = ProcessTable.ids()
            var mustLookAgain = ids.isEmpty
            var mustWait = ids.isEmpty
            for id in ids where !seen.contains(id) {
                switch ProcessTable.mark(mark, in: id) {
                case .found:
                    kill(id, SIGKILL)
                    ended.insert(id)
                    seen.insert(id)
                    mustLookAgain = true
                case .absent: seen.insert(id)
                case .ended:
                    seen.insert(id)
                    mustLookAgain = true
                case .unknown: (mustLookAgain, mustWait) = (true, true)
                }
            }
            guard mustLookAgain else { break }
            if mustWait {
                usleep(pause)
                pause = min(pause * 2, 20_000)
            }
        }
        return Array(ended)
        #else
        return []
        #endif
    }

    /// Reaps orphans of the process that have become children of this process, which inherits them as the first process
    /// of a container.
    static func reap(group: pid_t, and strays: [pid_t]) {
        guard getpid() == 1 else { return }
        for id in [-group] + strays {
            for _ in 0..<50 {
                let found = waitpid(id, nil, WNOHANG)
                if found < 0 { break }
                if found == 0 { usleep(2000) }
            }
        }
    }
}
