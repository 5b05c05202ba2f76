import ArgumentParser
import Hoist
import Logging

struct StatusCommand: AskingCommand {
    static let configuration = CommandConfiguration(commandName: "status", abstract: "Queues and workers at a glance.")
    @OptionGroup var options: InspectionOptions

    func perform() async throws {
        let backend = try options.open()
        let (queues, workers) = (try await backend.queues(), try await backend.workers())
        let others = try await OtherWorker.all(of: backend, besides: workers)
        // What another program's workers know is nobody's fault.
        let strangers = try await backend.directory?.strangers() ?? []
        let unknown = strangers.filter { count in
            // A backend that cannot look into its queues tells no names.
            count.name != JobCount.untold
                && !others.contains { $0.queues.contains(count.queue) && $0.jobNames.contains(count.name) }
        }
        // A task that Python put into a queue of its own waits there for ever when only Hoist's workers run.
        let unconsumed = await ForeignQueues.all(of: backend).filter { queue in
            !others.contains { $0.queues.contains(queue.name) } && !workers.contains { $0.queues.contains(queue.name) }
        }
        if options.json {
            print(
                JSONText.shown(
                    [
                        "queues": try Printing.encoded(queues),
                        "workers": .array(try workers.map(Printing.value) + others.map(\.value)),
                        "unknown_jobs": .array(unknown.map(Printing.value)),
                        "unconsumed_queues": try Printing.encoded(unconsumed),
                    ] as WireValue))
        } else {
            var parts = [Printing.queues(queues), Printing.workers(workers, others: others)]
            if !unknown.isEmpty { parts.append(Printing.unknown(unknown)) }
            if !unconsumed.isEmpty { parts.append(Printing.unconsumed(unconsumed)) }
            print(parts.joined(separator: "\n\n"))
        }
    }
}

/// Queues that other systems have declared, for people: where it is not possible to look, it says so and finds none.
private enum ForeignQueues {
    static func all(of backend: Backend) async -> [QueueStatistics] {
        do {
            return try await backend.directory?.foreignQueues() ?? []
        } catch {
            FleetPrinting.complain("other queues could not be looked for: \(TerminalText.line("\(error)"))")
            return []
        }
    }
}

struct QueuesCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "queues", abstract: "Queues and how many jobs each holds.")
    @OptionGroup var options: InspectionOptions

    func perform() async throws {
        let queues = try await options.open().queues()
        print(options.json ? try Printing.json(queues) : Printing.queues(queues))
    }
}

struct WorkersCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "workers", abstract: "Live workers, Swift and Python.",
        discussion: "With --check it ends with 1 when none consumes: a probe.")
    @OptionGroup var options: InspectionOptions
    @Flag(name: .long, help: "End with 1 unless a worker that is not draining lives.") var check = false

    func perform() async throws {
        let backend = try options.open()
        let workers = try await backend.workers()
        // A probe asks for Hoist's own.
        let others = check ? [] : try await OtherWorker.all(of: backend, besides: workers)
        if options.json {
            print(JSONText.shown(.array(try workers.map(Printing.value) + others.map(\.value))))
        } else {
            print(Printing.workers(workers, others: others))
        }
        if check, !workers.contains(where: { !$0.isDraining && $0.lastConsumedAt != nil }) { throw ExitCode(1) }
    }
}

struct FilterOptions: ParsableArguments {
    @Option(name: .long, help: "Only this queue.") var queue: String?
    @Option(name: .long, help: "Only jobs of this name.") var name: String?
    @Option(name: .long, help: "Only jobs whose arguments contain this text.") var text: String?
    @Option(name: .long, help: "At most so many.") var limit = 50

    func filter(ids: [JobID] = [], states: Set<JobState>? = nil) -> JobFilter {
        JobFilter(
            ids: ids.isEmpty ? nil : ids, states: states, queue: queue, name: name, argumentText: text,
            limit: max(0, limit))
    }
}

struct JobsCommand: AskingCommand {
    static let configuration = CommandConfiguration(commandName: "jobs", abstract: "Jobs, the newest first.")
    @OptionGroup var options: InspectionOptions
    @OptionGroup var filter: FilterOptions
    @Option(name: .long, help: "Only jobs in this state; may be repeated.") var state: [JobStateArgument] = []
    @Flag(
        name: .long,
        help: "All of them, page by page, in an order of the backend's own. With --json, a line for each job.")
    var all = false

    func perform() async throws {
        let states = Set(state.compactMap { JobState(rawValue: $0.rawValue) })
        let filter = filter.filter(states: states.isEmpty ? nil : states)
        let backend = try options.open()
        if all { return try await list(filter, in: backend) }
        let records = try await backend.jobs(filter)
        print(options.json ? JSONText.shown(WireValue.array(records.map(\.wireValue))) : Printing.jobs(records))
    }

    private func list(_ filter: JobFilter, in backend: Backend) async throws {
        var filter = filter
        filter.limit = 500
        var cursor: JobCursor?
        repeat {
            let page = try await backend.page(filter, after: cursor)
            if options.json {
                for record in page.jobs { print(JSONText.shown(record.wireValue)) }
            } else if !page.jobs.isEmpty {
                print(Printing.jobs(page.jobs))
            }
            cursor = page.next
        } while cursor != nil
    }
}

struct JobCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "job", abstract: "Everything about one job, its attempts, and why it does not run.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The job's id.") var id: String

    func perform() async throws {
        let backend = try options.open()
        var found = try await backend.record(of: id)
        if found == nil { found = try await Self.foreign(id, backend) }
        guard let record = found else {
            throw CommandFailure("no job \(TerminalText.line(id))")
        }
        print(options.json ? JSONText.shown(record.wireValue) : Printing.job(record))
    }

    /// A job that another system has enqueued, and of which only its message tells.
    private static func foreign(_ id: JobID, _ backend: Backend) async throws -> JobRecord? {
        guard backend.broker.address.transport == "redis", let directory = backend.directory else { return nil }
        for queue in try await directory.foreignQueues() + directory.queues() {
            let filter = JobFilter(states: [.waiting], queue: queue.name, limit: 10_000)
            if let record = try await directory.jobs(filter).first(where: { $0.id == id }) { return record }
        }
        return nil
    }
}

struct LogCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "log", abstract: "The last lines that a job wrote.",
        discussion: "Standard output and error of jobs in the process lane, and what handlers log in any lane.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The job's id.") var id: String
    @Flag(name: .long, help: "Go on until the job has ended.") var follow = false

    func perform() async throws {
        let backend = try options.open()
        guard try await backend.record(of: id) != nil else { throw CommandFailure("no job \(TerminalText.line(id))") }
        if options.json { return print(try Printing.json(try await backend.log(of: id) ?? JobLog(attempt: 0))) }
        var printed = JobLog(attempt: 0)
        while true {
            let hasEnded = try await backend.record(of: id)?.state.hasEnded ?? true
            if let log = try await backend.log(of: id) {
                let text = Printing.log(log, after: printed)
                if !text.isEmpty { print(text) }
                printed = log
            }
            if !follow || hasEnded { return }
            // Workers store the log of a running job once a second.
            try await Task.sleep(for: .milliseconds(500))
        }
    }
}

struct EnqueueCommand: AskingCommand {
    static let configuration = CommandConfiguration(commandName: "enqueue", abstract: "Enqueue a job by its name.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The job's wire name.") var name: String
    @Option(name: .long, help: "Positional arguments, a JSON array.") var args = "[]"
    @Option(name: .long, help: "Keyword arguments, a JSON object.") var kwargs = "{}"
    @Option(name: .long, help: "The queue (default: the one that live workers with this job consume, else default).")
    var queue: String?
    @Option(name: .long, help: "The job's id.") var id: String?
    @Option(name: .long, help: "0 to 9, 9 is the most urgent.") var priority: Int?
    @Option(name: .long, help: "Seconds to wait before it is due.") var delay: Double?

    func perform() async throws {
        let arguments = Arguments(
            positional: try JSONArgument.array(args, option: "--args"),
            keyword: try JSONArgument.object(kwargs, option: "--kwargs"))
        let backend = try options.open()
        let client = JobClient(
            backend, logger: Logger(label: "hoist", factory: { _ in SwiftLogNoOpLogHandler() }))
        var call: [EnqueueOption] = []
        var place = queue
        if place == nil { place = try await Self.usualQueue(of: name, backend) }
        if let place { call.append(.queue(place)) }
        if let id { call.append(.id(id)) }
        if let priority { call.append(.priority(priority)) }
        if let delay { call.append(.after(try SecondsArgument.duration(delay, "--delay"))) }
        let handle = try await client.enqueue(named: name, arguments: arguments, options: call)
        let answer: WireValue = ["id": .string(handle.id), "is_new": .bool(handle.isNew)]
        print(options.json ? JSONText.shown(answer) : handle.isNew ? handle.id : "\(handle.id) (was there already)")
    }

    /// The queue of a job, as far as live workers tell; nil where they do not.
    /// - Throws: ``CommandFailure`` when they consume several, and `default` is none of them.
    private static func usualQueue(of name: String, _ backend: Backend) async throws -> String? {
        let knowing = try await backend.workers().filter { $0.jobNames.contains(name) }
        // Parts of queues for labels or single workers are no place to enqueue to.
        let queues = Set(knowing.flatMap(\.queues)).filter { !$0.contains("[") && !$0.contains("@") }
        guard !queues.isEmpty, !queues.contains("default") else { return nil }
        guard queues.count == 1 else {
            let names = TerminalText.line(queues.sorted().joined(separator: ", "))
            throw CommandFailure(
                "workers with the job \(TerminalText.line(name)) consume \(names): name one by --queue")
        }
        return queues.first
    }
}

/// Parses command line arguments that are JSON.
enum JSONArgument {
    static func array(_ text: String, option: String) throws -> [WireValue] {
        guard case .array(let value) = try parse(text, option) else {
            throw ValidationError("\(option) takes a JSON array")
        }
        return value
    }

    static func object(_ text: String, option: String) throws -> WireObject {
        guard case .object(let value) = try parse(text, option) else {
            throw ValidationError("\(option) takes a JSON object")
        }
        return value
    }

    private static func parse(_ text: String, _ option: String) throws -> WireValue {
        do { return try JSONText.parse(Array(text.utf8)) } catch {
            throw ValidationError("\(option): \(error.message)")
        }
    }
}

struct DeadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dead", abstract: "Dead letters: jobs that failed for good.",
        subcommands: [List.self, Requeue.self, Drop.self], defaultSubcommand: List.self)

    struct List: AskingCommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List dead letters.")
        @OptionGroup var options: InspectionOptions
        @OptionGroup var filter: FilterOptions

        func perform() async throws {
            let records = try await options.open().jobs(filter.filter(states: [.failed]))
            if options.json { return print(JSONText.shown(WireValue.array(records.map(\.wireValue)))) }
            guard !records.isEmpty else { return print("no dead letters") }
            var table = TextTable("ID", "QUEUE", "NAME", "DIED", "REASON")
            for record in records {
                table.add(
                    record.id, record.queue, record.name, Printing.age(of: record.endedAt),
                    Printing.clipped(record.failure?.description ?? "-", to: 100))
            }
            print(table.printed())
        }
    }

    struct Requeue: AskingCommand {
        static let configuration = CommandConfiguration(
            commandName: "requeue", abstract: "Give dead letters another life.",
            discussion: "Name ids, or filter, or say --all. --kwargs and --args replace the arguments.")
        @OptionGroup var options: InspectionOptions
        @OptionGroup var filter: FilterOptions
        @OptionGroup var choice: DeadChoice
        @Option(name: .long, help: "New positional arguments, a JSON array.") var args: String?
        @Option(name: .long, help: "New keyword arguments, a JSON object.") var kwargs: String?

        func perform() async throws {
            var arguments: Arguments?
            if args != nil || kwargs != nil {
                arguments = Arguments(
                    positional: try JSONArgument.array(args ?? "[]", option: "--args"),
                    keyword: try JSONArgument.object(kwargs ?? "{}", option: "--kwargs"))
            }
            let count = try await options.open().requeue(try choice.filter(filter), arguments: arguments)
            print(
                options.json ? JSONText.shown(["requeued": .integer(Int64(count))] as WireValue) : "\(count) requeued")
            if count == 0, !choice.all { throw ExitCode(1) }
        }
    }

    struct Drop: AskingCommand {
        static let configuration = CommandConfiguration(
            commandName: "drop", abstract: "Remove dead letters for good.",
            discussion: "Name ids, or filter, or say --all.")
        @OptionGroup var options: InspectionOptions
        @OptionGroup var filter: FilterOptions
        @OptionGroup var choice: DeadChoice

        func perform() async throws {
            let count = try await options.open().drop(try choice.filter(filter))
            print(options.json ? JSONText.shown(["dropped": .integer(Int64(count))] as WireValue) : "\(count) dropped")
            if count == 0, !choice.all { throw ExitCode(1) }
        }
    }

    /// The choice of dead letters: all of them only with `--all`, never by mistake.
    struct DeadChoice: ParsableArguments {
        @Argument(help: "Job ids.") var ids: [String] = []
        @Flag(name: .long, help: "All of them.") var all = false

        func filter(_ options: FilterOptions) throws -> JobFilter {
            guard all || !ids.isEmpty || options.queue != nil || options.name != nil || options.text != nil else {
                throw ValidationError("name ids, filter with --queue, --name or --text, or say --all")
            }
            var filter = options.filter(ids: ids, states: [.failed])
            if all { filter.limit = .max }
            return filter
        }
    }
}

struct PurgeCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "purge", abstract: "Remove every job of a queue that has not been started.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The queue.") var queue: String
    @Flag(name: .long, help: "Do not ask.") var force = false

    func perform() async throws {
        if !force {
            print("Remove all jobs of \(queue) that have not been started? [y/N] ", terminator: "")
            guard let answer = readLine(), answer.lowercased().hasPrefix("y") else { throw ExitCode(1) }
        }
        let count = try await options.open().purge(queue: queue)
        print(options.json ? JSONText.shown(["purged": .integer(Int64(count))] as WireValue) : "\(count) purged")
    }
}
