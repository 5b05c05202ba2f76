import Hoist

/// Hides secrets in what is stored: the values of members whose names say that they are secret.
struct SecretMask: Sendable {
    /// Names besides the usual ones.
    var names: Set<String> = []

    static let hidden = "•••"

    func hide(_ text: String) -> String { SecretNames.hide(in: text, names) }

    /// Hides the secrets of a job's texts.
    func hide(_ job: HistoryJob) -> HistoryJob {
        var job = job
        job.positionalText = job.positionalText.map(hide)
        job.keywordText = job.keywordText.map(hide)
        job.result = job.result.map(hide)
        job.error = job.error.map(hide)
        job.traceback = job.traceback.map(hide)
        return job
    }

    /// Whether the member of this name is secret.
    func isSecret(_ name: String) -> Bool { names.contains(name) || SecretNames.isUsual(name) }
}
