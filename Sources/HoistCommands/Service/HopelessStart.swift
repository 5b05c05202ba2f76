import ArgumentParser
import Hoist

/// A program that cannot start as it is configured, and could not start a second time either: it ends with EX_CONFIG of
/// sysexits.h, and what keeps it running gives up.
enum HopelessStart {
    static let status = ExitCode(78)

    /// - Throws: ``status`` for an error that a restart cannot cure, which is printed. What else `body` throws passes
    ///   through.
    static func mapped(_ body: () async throws -> Void) async throws {
        do {
            try await body()
        } catch {
            guard isHopeless(error) else { throw error }
            FleetPrinting.complain("Error: " + TerminalText.line("\(error)"))
            throw status
        }
    }

    private static func isHopeless(_ error: any Error) -> Bool {
        switch error {
        case is CommandFailure, is ValidationError, is WorkerError, is ScheduleError: true
        case let error as BackendError: error.code == .misuse || error.code == .incompatible
        default: false
        }
    }
}
