import ArgumentParser
import Hoist
import HoistCommands
import Logging
import ServiceLifecycle

/// A worker whose jobs crash, leak, hang and lie, and a command that gives it three thousand of them.
@main
struct Main {
    struct TortureCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "Torture", abstract: "Jobs that crash, leak and hang, and the worker that survives them.",
            subcommands: [WorkerCommand<TortureApp>.self, UpCommand<TortureApp>.self, FeedCommand.self])
    }

    static func main() async { await TortureCommand.main() }
}

enum TortureApp: ServiceApp {
    struct Options: ParsableArguments {
        @Option(name: .long, help: "How many child processes.") var children = 4
    }

    static func makeWorker(_ setup: inout WorkerSetup<Options>) async throws -> Worker {
        setup.configuration.processes.grace = .milliseconds(300)
        return setup.worker(lanes: [.process(setup.options.children)]) {
            Handler(Ordeal.self, in: .process) { job, _ in try Misdeeds.perform(job) }
        }
    }
}

/// Enqueues jobs, of which about a tenth are bad, waits for all of them, and prints the outcomes of each kind.
struct FeedCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "feed",
        abstract: "Enqueue good and bad jobs for a worker that runs elsewhere, and print what became of them.")

    @OptionGroup var backend: BackendOptions
    @Option(name: .long, help: "How many jobs.") var jobs = 3000
    @Option(name: .long, help: "How many of each bad kind.") var bad = 25

    func run() async throws {
        let backend = try backend.open()
        let client = JobClient(backend, logger: Logger(label: "torture"))
        let handles = try await client.enqueue(contentsOf: Ordeal.mixture(of: jobs, bad: bad))
        let deeds = Ordeal.mixture(of: jobs, bad: bad)
        var fates: [Ordeal.Deed: [String: Int]] = [:]
        var wrong = 0
        for (job, handle) in zip(deeds, handles) {
            var record: JobRecord?
            for try await update in handle.updates { record = update }
            guard let record else { continue }
            let fate = Ordeal.Deed.Fate(state: record.state, kind: record.failure?.kind)
            let isRight =
                fate == job.deed.fate && (job.deed != .good || record.output == .integer(Int64(job.number * 2)))
            if !isRight { wrong += 1 }
            fates[job.deed, default: [:]][
                record.failure.map { "\(record.state.rawValue): \($0.kind)" } ?? record.state.rawValue, default: 0] += 1
        }
        for deed in Ordeal.Deed.allCases {
            let counts = (fates[deed] ?? [:]).sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(
                separator: ", ")
            print(deed.rawValue.padding(to: 18) + counts)
        }
        if wrong > 0 {
            print("\(wrong) jobs did not end as they should")
            throw ExitCode(1)
        }
    }
}

extension String {
    fileprivate func padding(to width: Int) -> String { self + String(repeating: " ", count: max(1, width - count)) }
}
