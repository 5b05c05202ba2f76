/// Measures the queues of a worker now and then, where there is a metrics system to tell.
struct QueueGauges: Sendable {
    let engine: WorkerEngine
    let backend: Backend
    let metrics: WorkerMetrics

    func run() async {
        guard metrics.isListening, let directory = backend.directory else { return }
        while !Task.isCancelled {
            // A worker that stops does not wait for the answer.
            let counted = try? await withDeadline(.seconds(30), clock: SystemJobClock()) {
                try await directory.queues()
            }
            if let queues = counted {
                let consumed = await engine.consumedQueues
                metrics.queueLengths(
                    queues.filter { consumed.contains($0.name) }, now: backend.clock.now.microsecondsSinceEpoch)
            }
            await backend.clock.sleep(for: .seconds(15))
        }
    }
}
