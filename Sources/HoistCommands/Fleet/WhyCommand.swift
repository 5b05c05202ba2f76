import ArgumentParser
import Hoist

struct WhyCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "why", abstract: "Why a job does not run, or what became of it.",
        discussion: """
            One sentence. With --json also its code and facts: unknown, ended, running, cancelling, delayed, retrying, queue_paused, \
            queue_closed, with_python_worker, no_worker, no_consumer, worker_missing, labels_missing, no_handler, limited, undecodable, \
            in_line. It ends with 1 when nobody knows the job.
            """)
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The job's id.") var id: String

    func perform() async throws {
        let explanation = try await Fleet(options.open()).explain(id)
        if options.json {
            print(
                JSONText.shown(
                    [
                        "code": .string(explanation.code.rawValue), "sentence": .string(explanation.sentence),
                        "facts": .object(explanation.facts),
                    ] as WireValue))
        } else {
            print(TerminalText.line(explanation.sentence))
        }
        if explanation.code == .unknown { throw ExitCode(1) }
    }
}
