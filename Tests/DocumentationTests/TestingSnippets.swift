import Foundation
import Hoist
import HoistTesting
import Logging
import Synchronization
import Testing

private let logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
/// The program whose children a test runs; nil without one.
private let program = ProcessInfo.processInfo.environment["SNIPPETS_PROGRAM"]

private struct ServerDown: Error {}

private struct PaintPicture: Job {
    static let name = "pictures.paint"
    var path: String
}

private typealias MyBackend = MemoryBackend

struct SendMail: Job, Equatable {
    static let name = "mail.send"
    static let options = JobOptions(retry: .fixed(.seconds(600), maxAttempts: 3))
    var to: String
}

struct SignUp {
    let jobs: JobClient

    func post(address: String) async throws {
        try await jobs.enqueue(SendMail(to: address), .id("welcome-\(address)"))
    }
}

/// The tests that the documentation of HoistTesting shows.
@Suite("Testing", .timeLimit(.minutes(3)))
struct TestingSnippets {
    @Test("a mail goes to the address of the job")
    func sends() async throws {
        let sent = Mutex<[String]>([])
        let inline = InlineJobs {
            Handler(SendMail.self) { mail, _ in sent.withLock { $0.append(mail.to) } }
        }
        let handle = try await inline.client.enqueue(SendMail(to: "ada@example.org"))
        #expect(try await handle.state() == .succeeded)
        #expect(sent.withLock { $0 } == ["ada@example.org"])
    }

    @Test("a mail is tried three times, ten minutes apart")
    func retries() async throws {
        let attempts = Mutex(0)
        let inline = InlineJobs {
            Handler(SendMail.self) { _, _ in
                attempts.withLock { $0 += 1 }
                throw ServerDown()
            }
        }
        let handle = try await inline.client.enqueue(SendMail(to: "ada@example.org"))
        #expect(try await handle.state() == .retrying)
        for _ in 2...3 {
            inline.clock.advance(by: .seconds(600))
            try await inline.runDueJobs()
        }
        #expect(attempts.withLock { $0 } == 3)
        #expect(try await handle.record()?.failure?.type == "ServerDown")
    }

    @Test("signing up enqueues one mail, however often the form is sent")
    func signUp() async throws {
        let backend = MemoryBackend()
        let page = SignUp(jobs: JobClient(backend, logger: logger))
        try await page.post(address: "ada@example.org")
        try await page.post(address: "ada@example.org")
        #expect(try await backend.enqueued(SendMail.self) == [SendMail(to: "ada@example.org")])
    }

    @Test("a running job can be cancelled")
    func cancels() async throws {
        let backend = MemoryBackend()
        let worker = Worker(backend, logger: logger) {
            Handler(SendMail.self) { _, _ in try await Task.sleep(for: .seconds(60)) }
        }
        try await withWorker(worker) {
            let handle = try await JobClient(backend, logger: logger).enqueue(SendMail(to: "ada"))
            #expect(try await eventually { try await handle.state() == .running })
            try await handle.cancel()
            #expect(try await eventually { try await handle.state() == .cancelled })
        }
    }

    @Test("an enqueue whose answer was lost is repeated under its id")
    func repeats() async throws {
        let memory = MemoryBackend()
        let jobs = JobClient(FaultyBackend(memory, faults: [.loseAnswer]), logger: logger)
        await #expect(throws: BackendError.self) {
            try await jobs.enqueue(SendMail(to: "ada"), .id("mail-1"))
        }
        let handle = try await jobs.enqueue(SendMail(to: "ada"), .id("mail-1"))
        #expect(!handle.isNew)
        #expect(try await memory.enqueued(SendMail.self).count == 1)
    }

    @Test("a picture that crashes the painter fails alone", .enabled(if: program != nil))
    func crashes() async throws {
        var configuration = Worker.Configuration()
        configuration.processes.executable = program
        configuration.processes.arguments = ["worker", "--backend", "memory:"]
        let backend = MemoryBackend()
        let worker = Worker(backend, lanes: [.process(1)], configuration: configuration, logger: logger) {
            Handler(PaintPicture.self, in: .process) { _, _ in }
        }
        try await withWorker(worker) {
            let handle = try await JobClient(backend, logger: logger).enqueue(PaintPicture(path: "broken.png"))
            await #expect(throws: JobError.self) { try await handle.output(timeout: .seconds(30)) }
            #expect(try await handle.record()?.failure?.kind == .crashed)
        }
    }

    @Test(arguments: BackendContract.checks + BackendContract.realChecks)
    func contract(_ check: BackendContract.Check) async throws {
        try await check.run { clock in MyBackend(clock: clock) }
    }
}
