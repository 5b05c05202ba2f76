import Foundation
import Synchronization

/// Processes that run when the test process ends, with their folders: a shared server outlives every test.
enum TestProcesses {
    private static let leftovers = Mutex<[pid_t: String]>([:])
    private static let stopsAtExit: Void = {
        atexit {
            for (process, folder) in TestProcesses.leftovers.withLock({ $0 }) {
                kill(process, SIGKILL)
                try? FileManager.default.removeItem(atPath: folder)
            }
        }
    }()

    static func register(_ process: pid_t, _ folder: String) {
        _ = stopsAtExit
        leftovers.withLock { $0[process] = folder }
    }

    static func forget(_ process: pid_t) { leftovers.withLock { $0[process] = nil } }
}
