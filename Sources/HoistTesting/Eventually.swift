/// Waits until `condition` holds, for at most `limit`. Evaluates `condition` every 10 milliseconds.
/// - Returns: whether `condition` held in time.
/// - Throws: What `condition` throws; `CancellationError` when the task is cancelled while it waits.
public func eventually(_ limit: Duration = .seconds(30), _ condition: () async throws -> Bool) async throws -> Bool {
    let deadline = ContinuousClock.now + limit
    while ContinuousClock.now < deadline {
        if try await condition() { return true }
        try await Task.sleep(for: .milliseconds(10))
    }
    return try await condition()
}
