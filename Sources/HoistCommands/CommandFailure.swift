import ArgumentParser
import Hoist

/// A command was understood and could not do what it was asked to: something is not there, or refuses. It ends with
/// status 1, and prints no usage.
struct CommandFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// Nobody has answered: the same status as that of Celery's tools, EX_UNAVAILABLE of sysexits.h.
let nobodyAnswered = ExitCode(69)

/// A command that asks a backend, or the workers there. It ends with 69 when they do not answer.
protocol AskingCommand: AsyncParsableCommand {
    mutating func perform() async throws
}

extension AskingCommand {
    mutating func run() async throws {
        do {
            try await perform()
        } catch let error as BackendError where error.code == .unavailable || error.code == .timedOut {
            FleetPrinting.complain("Error: " + TerminalText.line("\(error)"))
            throw nobodyAnswered
        }
    }
}
