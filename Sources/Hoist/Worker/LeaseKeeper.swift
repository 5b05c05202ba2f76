/// Renews the lease of a worker, five times in its length, as long as the worker runs.
struct LeaseKeeper: Sendable {
    let engine: WorkerEngine
    let lease: Duration
    let clock: any JobClock

    func run() async {
        let interval = Duration.microseconds(lease.inMicroseconds / 5)
        while !Task.isCancelled {
            await clock.sleep(for: interval)
            if Task.isCancelled { return }
            await engine.renewLease()
        }
    }
}
