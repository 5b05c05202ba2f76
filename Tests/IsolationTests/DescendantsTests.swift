import Foundation
import Hoist
import HoistTesting
import Testing

extension OneAfterTheOther {
    @Suite("What a process leaves behind", .serialized, .timeLimit(.minutes(2)))
    struct DescendantsTests {
        @Test("it ends with the process, also where it is started at that very moment")
        func startedWhileItEnds() async throws {
            // Each process starts the next and exits; no signal to the group reaches any of them.
            let relay =
                "setsid sh -c 'setsid sh -c \"setsid sleep 20471 &\" & setsid sleep 20472 &' & setsid sleep 20473 &"
            let program = SpawnedProcess.Program(
                path: "/bin/sh", arguments: ["-c", relay], environment: ["PATH=/usr/bin:/bin"])
            await withTaskGroup(of: Void.self) { group in
                for number in 0..<200 {
                    if number >= 8 { await group.next() }
                    group.addTask {
                        await withCheckedContinuation { continuation in
                            _ = SpawnedProcess(program, descriptors: [nil, nil, nil]) { _ in continuation.resume() }
                        }
                    }
                }
            }
            func left() -> [Processes.Entry] { Processes.all().filter { $0.command.contains("sleep 2047") } }
            // Processes that were killed a moment ago may still be exiting.
            let isClean = try await eventually(.seconds(5)) { left().isEmpty }
            #expect(isClean, "\(left().map(\.command))")
            for process in left() { kill(process.id, SIGKILL) }
        }
    }
}
