/// Warns of jobs that wait in the queues of this worker under names that neither it nor any other live worker of
/// Hoist's knows. They may be for another program's workers; then they cost nothing.
struct StrangerWatch: Sendable {
    let engine: WorkerEngine
    let backend: Backend

    /// Workers that start together have announced themselves by then.
    static let first = Duration.seconds(60)
    private static let interval = Duration.seconds(600)
    /// So many names are warned of, each once: names are from outside.
    private static let mostNames = 100
    /// So many jobs of a queue are looked at. Their messages may be large.
    private static let sample = 20

    func run() async {
        guard let directory = backend.directory else { return }
        var warned: Set<String> = []
        await backend.clock.sleep(for: Self.first)
        while !Task.isCancelled, warned.count < Self.mostNames {
            let queues = await engine.consumedQueues
            // Nothing hangs on it: what fails, or takes too long, is looked at another time.
            let found = try? await withDeadline(.seconds(20), clock: SystemJobClock()) {
                try await strangers(in: queues, directory)
            }
            for (name, queue) in found ?? [] where warned.count < Self.mostNames && warned.insert(name).inserted {
                engine.inbox.warn(
                    "jobs of the name \(name) wait in the queue \(queue), and no live Hoist worker knows them: register "
                        + "a handler, or leave them to the workers of another program (hoist status counts them)")
            }
            await backend.clock.sleep(for: Self.interval)
        }
    }

    private func strangers(
        in queues: Set<String>, _ directory: any JobDirectory
    ) async throws -> [(name: String, queue: String)] {
        let waiting = try await directory.queues().filter { $0.waiting > 0 && queues.contains($0.name) }
        guard !waiting.isEmpty else { return [] }
        let workers = try await directory.workers()
        var found: [(name: String, queue: String)] = []
        for queue in waiting {
            let filter = JobFilter(states: [.waiting], queue: queue.name, limit: Self.sample)
            let known = Set(workers.filter { $0.queues.contains(queue.name) }.flatMap(\.jobNames))
            for job in try await directory.jobs(filter) where !known.contains(job.name) {
                found.append((job.name, queue.name))
            }
        }
        return found
    }
}

extension JobDirectory {
    /// The waiting jobs whose names no live worker of Hoist's knows that consumes their queue, by queue and name.
    /// - Throws: ``BackendError``; the call only reads, so a retry is safe.
    package func strangers() async throws -> [JobCount] {
        let waiting = try await counts().filter { $0.state == .waiting && $0.count > 0 }
        guard !waiting.isEmpty else { return [] }
        let workers = try await workers()
        return waiting.filter { count in
            !workers.contains { $0.queues.contains(count.queue) && $0.jobNames.contains(count.name) }
        }
    }
}
