import Hoist
import HoistHummingbird
import HoistTesting
import Hummingbird
import HummingbirdTesting
import Logging
import ServiceLifecycle
import Synchronization
import Testing

private let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

private struct Notice: Job, Equatable {
    static let name = "test.notice"
    var text: String
}

@Suite("Background tasks", .timeLimit(.minutes(3)))
struct BackgroundTasksTests {
    let backend = MemoryBackend()
    var jobs: JobClient { JobClient(backend, logger: quiet) }

    private func running(_ background: BackgroundTasks, _ body: (ServiceGroup) async throws -> Void) async throws {
        let group = ServiceGroup(configuration: .init(services: [background], logger: quiet))
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await group.run() }
            try await body(group)
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
        }
    }

    @Test("async and blocking work is done, errors do no harm, and a shutdown waits for what was accepted")
    func drain() async throws {
        let done = Mutex<[String]>([])
        let background = BackgroundTasks(jobs: jobs, logger: quiet) {
            Handler(Notice.self) { notice, _ in done.withLock { $0.append(notice.text) } }
        }
        try await running(background) { group in
            try await background.run("fails") { throw CancellationError() }
            try await background.run("async") {
                try await Task.sleep(for: .milliseconds(200))
                done.withLock { $0.append("async") }
            }
            try await background.run("blocking", .blocking) { done.withLock { $0.append("blocking") } }
            try await background.perform(Notice(text: "here"))
            try await background.perform(Notice(text: "durable"), .durable)
        }
        #expect(done.withLock { Set($0) } == ["async", "blocking", "here"])
        #expect(try await background.pending() == 0)
        #expect(
            try await backend.enqueued(Notice.self) == [Notice(text: "durable")], "one word makes it a job of the queue"
        )
        await #expect(throws: BackgroundTasksError.self) { try await background.run("late") {} }
    }

    @Test("more than the limit is refused")
    func limit() async throws {
        let background = BackgroundTasks(jobs: jobs, limit: 2, logger: quiet)
        try await background.run("one") {}
        try await background.run("two") {}
        await #expect(throws: BackgroundTasksError.self) { try await background.run("three") {} }
        try await running(background) { _ in }
    }

    @Test("work added to a response begins once it is written")
    func afterwards() async throws {
        let order = Mutex<[String]>([])
        let router = Router()
        router.get("/") { _, _ in
            Response(
                status: .ok,
                body: ResponseBody { writer in
                    try await writer.write(ByteBuffer(string: "hello"))
                    order.withLock { $0.append("written") }
                    try await writer.finish(nil)
                }
            ).afterwards { order.withLock { $0.append("after") } }
        }
        try await Application(router: router, logger: quiet).test(.router) { client in
            let response = try await client.execute(uri: "/", method: .get)
            #expect(String(buffer: response.body) == "hello")
        }
        #expect(order.withLock { $0 } == ["written", "after"])
    }
}
