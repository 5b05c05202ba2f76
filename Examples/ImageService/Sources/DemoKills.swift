import Foundation
import Hoist

/// What a visitor of the demo may kill. In demo mode alone, which listens on this machine's loopback.
struct DemoKills: Sendable {
    let backend: Backend

    /// Kills this process a moment later, so that the answer is written first.
    func killServer() {
        Task {
            try? await Task.sleep(for: .milliseconds(50))
            kill(getpid(), SIGKILL)
        }
    }

    /// Kills a worker of this program on this machine, one that works if there is one.
    /// - Returns: its name; nil when there is none.
    func killWorker() async throws -> String? {
        let working = try await backend.jobs(JobFilter(states: [.running], name: PaintImage.name)).compactMap(\.worker)
        for name in working + (try await backend.workers().map(\.name)) {
            // The name of a worker that was given none: hoist-<process id>@<host>.
            guard let number = name.split(separator: "@").first?.split(separator: "-").last,
                let process = pid_t(number), process != getpid(), Self.isThisProgram(process)
            else { continue }
            kill(process, SIGKILL)
            return name
        }
        return nil
    }

    private static func isThisProgram(_ process: pid_t) -> Bool {
        let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return own != nil && own == (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/exe"))
    }
}
