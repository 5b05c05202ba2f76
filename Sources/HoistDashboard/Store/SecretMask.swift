import Hoist

/// Hides secrets in what is stored: the values of members whose names say that they are secret.
struct SecretMask: Sendable {
    /// Names besides the usual ones.
    var names: Set<String> = []

    static let hidden = "•••"

    func hide(_ text: String) -> String { SecretNames.hide(in: text, names) }

    /// Hides members that are secret, however deep, and secrets in texts.
    func hide(_ value: WireValue) -> WireValue {
        switch value {
        case .string(let text): .string(hide(text))
        case .array(let elements): .array(elements.map(hide))
        case .object(let members):
            .object(.init(members.map { ($0.key, isSecret($0.key) ? .string(Self.hidden) : hide($0.value)) }))
        case .null, .bool, .integer, .bigInteger, .double: value
        }
    }

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
