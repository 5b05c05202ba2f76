/// Renews the lease of a worker, five times in its length, as long as the worker runs.
///
/// On a thread of its own, and it waits for nothing but the backend: not for turns, takeovers, log handlers or any
/// other code of the program.
struct LeaseKeeper: Sendable {
    let session: SessionBox
    let inbox: WorkerInbox
    let lease: Duration
    let clock: any JobClock
    /// Called when the lease is lost: the jobs of this incarnation are other workers' by now.
    let onLoss: @Sendable (WorkerID) async -> Void

    func run() async {
        let interval = Duration.microseconds(lease.inMicroseconds / 5)
        var pause = interval
        while !Task.isCancelled {
            await clock.sleep(for: pause)
            if Task.isCancelled { return }
            pause = await renew() ? interval : min(interval, .milliseconds(200))
        }
    }

    /// - Returns: false when the backend could not be asked.
    private func renew() async -> Bool {
        guard let (session, presence) = session.announced else { return true }
        do {
            guard try await session.renew(presence) else {
                await onLoss(presence.id)
                return true
            }
            inbox.noteRenewal(nil, of: presence.id)
            return true
        } catch {
            inbox.noteRenewal(error, of: presence.id)
            return false
        }
    }
}
