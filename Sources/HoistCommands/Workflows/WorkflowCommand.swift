import ArgumentParser
import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

struct WorkflowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "workflow", abstract: "Jobs that are composed.",
        subcommands: [ListWorkflows.self, ShowWorkflow.self, CancelWorkflow.self], defaultSubcommand: ListWorkflows.self
    )
}

/// Ends a command with 1.
private struct NoWorkflow: Error, CustomStringConvertible {
    var id: String
    var description: String { "there is no workflow \(TerminalText.line(id)), or none any more" }
}

extension InspectionOptions {
    fileprivate var workflows: WorkflowReader { get throws { WorkflowReader(try open()) } }
}

struct ListWorkflows: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "The workflows that are known, the newest first.")
    @OptionGroup var options: InspectionOptions
    @Option(name: .long, help: "How many, 1 to 1,000.") var limit = 50

    func validate() throws {
        guard (1...1000).contains(limit) else { throw ValidationError("--limit \(limit): 1 to 1,000 can be listed") }
    }

    private struct Line: Encodable {
        var id: String
        var name: String
        var state: WorkflowState
        var createdAt: Date
        var endedAt: Date?
    }

    func perform() async throws {
        let workflows = try await options.workflows.list(limit: limit)
        if options.json {
            let lines = workflows.map {
                Line(id: $0.id, name: $0.name, state: $0.state, createdAt: $0.createdAt, endedAt: $0.endedAt)
            }
            return print(try JSONText.shown(lines))
        }
        guard !workflows.isEmpty else { return print("no workflows") }
        var table = TextTable("ID", "NAME", "STATE", "CREATED", "ENDED")
        for workflow in workflows {
            table.add(
                workflow.id, workflow.name, workflow.state.rawValue, Printing.age(of: workflow.createdAt),
                Printing.age(of: workflow.endedAt))
        }
        print(table.printed())
    }
}

struct ShowWorkflow: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "One workflow with its steps.",
        discussion: """
            With --dot it prints a graph for Graphviz: hoist workflow show ID --dot | dot -Tsvg. It ends with 1 when there is no such \
            workflow.
            """)
    @OptionGroup var options: InspectionOptions
    @Flag(name: .long, help: "Print a graph for Graphviz.") var dot = false
    @Argument(help: "The workflow's id.") var id: String

    func perform() async throws {
        guard let status = try await options.workflows.status(of: id) else { throw NoWorkflow(id: id) }
        if options.json { return print(try JSONText.shown(status)) }
        print(dot ? Self.graph(of: status) : Self.text(of: status))
    }

    static func text(of status: WorkflowStatus) -> String {
        var heading =
            "\(status.id)  \(status.name)  \(status.state.rawValue)  created \(Printing.age(of: status.createdAt))"
        if let ended = status.endedAt { heading += ", ended \(Printing.age(of: ended))" }
        var table = TextTable("STEP", "NAME", "AFTER", "STATE", "ATTEMPTS", "JOB", "FAILURE")
        for (number, step) in status.steps.enumerated() {
            table.add(
                String(number), step.name, step.parents.map(String.init).joined(separator: " "), state(of: step),
                step.jobID == nil ? "" : String(step.attempts), step.jobID ?? "",
                Printing.clipped(step.failure ?? ""))
        }
        return TerminalText.line(heading) + "\n" + table.printed()
    }

    private static func state(of step: StepStatus) -> String {
        if let ended = step.ended, let elements = step.elements { return "\(ended) of \(elements)" }
        return step.state?.rawValue ?? ""
    }

    /// In the language of Graphviz. Names come from outside, and are quoted.
    static func graph(of status: WorkflowStatus) -> String {
        func quoted(_ text: String) -> String {
            let escaped = TerminalText.line(text).replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
            return "\"\(escaped)\""
        }
        var lines = ["digraph \(quoted(status.id)) {", "  node [shape=box];"]
        for (number, step) in status.steps.enumerated() {
            let state = state(of: step)
            lines.append("  s\(number) [label=\(quoted(state.isEmpty ? step.name : "\(step.name): \(state)"))];")
            for parent in step.parents { lines.append("  s\(parent) -> s\(number);") }
        }
        return (lines + ["}"]).joined(separator: "\n")
    }
}

struct CancelWorkflow: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Stop a workflow: no further step starts, and running ones are told to stop.",
        discussion: "It ends with 1 when the workflow had ended, or is not known.")
    @OptionGroup var options: InspectionOptions
    @Argument(help: "The workflow's id.") var id: String

    func perform() async throws {
        let isCancelled = try await options.workflows.cancel(id)
        if options.json {
            print(try JSONText.shown(["cancelled": isCancelled]))
        } else {
            print(TerminalText.line(isCancelled ? "\(id) cancelled" : "\(id) had ended, or is not known"))
        }
        if !isCancelled { throw ExitCode(1) }
    }
}
