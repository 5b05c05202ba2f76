extension JobRecord {
    /// What every backend tells of a job that has succeeded: all of it is done, and the failure of an earlier attempt
    /// is history.
    package mutating func completeIfSucceeded() {
        guard state == .succeeded else { return }
        failure = nil
        // What the handler said last is out of date unless it was about the end.
        let last = progress.flatMap { $0.fraction ?? 0 >= 1 ? $0 : nil }
        progress = last ?? JobProgress(fraction: 1)
    }
}
