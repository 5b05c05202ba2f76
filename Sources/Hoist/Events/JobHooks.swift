/// Runs the user's code for what happens to a job: the hooks of its handler, and the notice of dead letters.
///
/// Unlike an ``EventSink`` it may suspend, and a job that ends is settled after its hooks. It runs where the handler
/// runs.
struct JobHooks: Sendable {
    let hooks: Handler.Hooks
    let onDeadLetter: (@Sendable (JobID, JobFailure) async -> Void)?

    /// The handler is about to begin.
    func started(_ context: JobContext) async {
        for hook in hooks.start { await hook(context) }
    }

    /// The attempt is over.
    func ended(_ outcome: Outcome, _ context: JobContext) async {
        switch outcome {
        case .succeeded: for hook in hooks.success { await hook(context) }
        case .retry(_, let failure, _): for hook in hooks.retry { await hook(context, failure) }
        case .failed(let failure):
            for hook in hooks.failure { await hook(context, failure) }
            await onDeadLetter?(context.id, failure)
        case .snoozed, .refused, .cancelled, .expired, .handedBack, .notStarted: break
        }
        for hook in hooks.finish { await hook(context) }
    }

    /// The job became a dead letter, and its message cannot be read.
    func ended(_ failure: JobFailure, unreadable id: JobID) async { await onDeadLetter?(id, failure) }
}
