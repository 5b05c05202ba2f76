import Hoist

/// What the routes know of a job whose type they were given.
struct JobKind: Sendable {
    /// The wire name, and aliases.
    let names: [String]
    let options: JobOptions
    /// What the job says of a call: its unique key and its partition. Throws `ArgumentError` for arguments that do not fit
    /// the job.
    let callOptions: @Sendable (Arguments) throws -> [EnqueueOption]

    init<J: Job>(_ type: J.Type) {
        names = [J.name] + J.aliases
        options = J.options
        SecretNames.note(J.secretArguments, of: J.name)
        callOptions = { arguments in
            let job = try arguments.bind(job: J.self).job
            return [job.uniqueKey.map { .unique($0) }, job.partitionKey.map { .partition($0) }].compactMap(\.self)
        }
    }
}
