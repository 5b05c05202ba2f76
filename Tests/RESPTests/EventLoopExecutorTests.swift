import Endpoints
import NIOCore
import RESP
import Synchronization
import Testing

@Suite("The event loop's thread for tasks", .timeLimit(.minutes(3))) struct EventLoopExecutorTests {
    private actor Resident {
        private let executor: EventLoopSerialExecutor
        nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

        init(_ executor: EventLoopSerialExecutor) { self.executor = executor }

        /// Whether the actor and what it calls run on the loop.
        func visit(_ loop: any EventLoop) async -> [Bool] {
            preconditionIsolated()
            let before = loop.inEventLoop
            let elsewhere = await EventLoopExecutorTests.isOn(loop)
            preconditionIsolated()
            return [before, elsewhere, loop.inEventLoop]
        }
    }

    @concurrent private static func isOn(_ loop: any EventLoop) async -> Bool { loop.inEventLoop }

    @concurrent private static func nested(_ depth: Int, _ body: @Sendable () -> Void) async {
        if depth > 0 { return await nested(depth - 1, body) }
        body()
    }

    @Test("a task that prefers it goes through its asynchronous functions without being enqueued for each")
    func direct() async {
        let executor = EventLoopExecutor()
        let loop = executor.group.next()
        let hasTurned = Mutex(false)
        await withTaskExecutorPreference(executor) {
            #expect(await Self.isOn(loop))
            // Work that is enqueued from here on runs after this.
            loop.execute { hasTurned.withLock { $0 = true } }
            await Self.nested(5) { #expect(!hasTurned.withLock { $0 }) }
            await Task.yield()
            #expect(hasTurned.withLock { $0 })
        }
    }

    @Test("an actor on it runs there, also between what it calls")
    func actors() async {
        let executor = EventLoopExecutor()
        let resident = Resident(EventLoopSerialExecutor(executor))
        let loop = executor.group.next()
        #expect(await withTaskExecutorPreference(executor) { await resident.visit(loop) } == [true, true, true])
        #expect(await resident.visit(loop).first == true)
    }
}
