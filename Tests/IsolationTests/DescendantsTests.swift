import Foundation
import Hoist
import Testing

extension OneAfterTheOther {
    @Suite("What a process leaves behind", .serialized, .timeLimit(.minutes(2)))
    struct DescendantsTests {
        @Test("it ends with the process, also where it is started at that very moment")
        func startedWhileItEnds() async throws {
            // Each starts the next and is gone; no signal to the group reaches any.
            let relay = "setsid sh -c 'setsid sh -c \"setsid sleep 20471 &\" & setsid sleep 20472 &' & setsid sleep 20473 &"
            let program = SpawnedProcess.Program(path: "/bin/sh", arguments: ["-c", relay], environment: ["PATH=/usr/bin:/bin"])
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
            let left = Processes.all().filter { $0.command.hasPrefix("sleep 2047") }
            for process in left { kill(process.id, SIGKILL) }
            #expect(left.isEmpty, "\(left.map(\.command))")
        }
    }
}
