/// Warns of jobs that wait in the queues of this worker under names that neither it nor any other live worker of
/// Hoist's knows. They may be for another program's workers; then they cost nothing.
struct StrangerWatch: Sendable {
    let engine: WorkerEngine
    let backend: Backend

    /// Workers that start together have announced themselves by then.
    private static let first = Duration.seconds(60)
    private static let interval = Duration.seconds(600)
    /// So many names are warned of, each once: names are from outside.
    private static let mostNames = 100

    func run() async {
        guard let directory = backend.directory else { return }
        var warned: Set<String> = []
        await backend.clock.sleep(for: Self.first)
        while !Task.isCancelled, warned.count < Self.mostNames {
            let own = await engine.intake
            for stranger in (try? await directory.strangers(in: own.queues, besides: own.names)) ?? [] {
                guard warned.count < Self.mostNames, warned.insert(stranger.name).inserted else { continue }
                engine.inbox.warn(
                    "\(stranger.isEstimate ? "about " : "")\(stranger.count) jobs of the name \(stranger.name) wait in "
                        + "the queue \(stranger.queue), which no live Hoist worker knows: register a handler, or leave "
                        + "them to the workers of another program (hoist status counts them)")
            }
            await backend.clock.sleep(for: Self.interval)
        }
    }
}

extension JobDirectory {
    /// The waiting jobs whose names no live worker of Hoist's knows that consumes their queue, by queue and name.
    /// - Parameters:
    ///   - queues: only of these queues; nil for all.
    ///   - names: names that count as known.
    /// - Throws: ``BackendError``; the call only reads, so a retry is safe.
    package func strangers(in queues: Set<String>? = nil, besides names: Set<String> = []) async throws -> [JobCount] {
        let waiting = try await counts().filter { count in
            count.state == .waiting && count.count > 0 && !names.contains(count.name)
                && queues?.contains(count.queue) != false
        }
        guard !waiting.isEmpty else { return [] }
        let workers = try await workers()
        return waiting.filter { count in
            !workers.contains { $0.queues.contains(count.queue) && $0.jobNames.contains(count.name) }
        }
    }
}
