public import ArgumentParser
import Hoist
public import HoistDashboard

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

extension DashboardRole: ExpressibleByArgument {}
extension DashboardRight: ExpressibleByArgument {}

/// `dashboard user`: who may log in.
struct DashboardUserCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "user", abstract: "Say who may log in to the dashboard.",
        subcommands: [Add.self, List.self, Remove.self])

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add a user, or give one another password and role.",
            discussion: "The password is asked for, or read from the first line of a file. It is never an argument.")
        @Argument(help: "The name to log in with.") var name: String
        @Option(name: .long, help: "viewer sees everything, operator and admin also act.")
        var role: DashboardRole
        @Option(name: .long, help: "Read the password from the first line of this file; - for standard input.")
        var passwordFile: String?
        @OptionGroup var history: HistoryOptions

        func run() throws {
            let users = try history.keptUsers
            try users.set(name, password: try password(), role: role)
            let isFirst = try users.all().count == 1
            print(
                "\(TerminalText.line(name)) may log in as \(role.rawValue)"
                    + (isFirst ? "; a dashboard that runs already asks for it after its next start" : ""))
        }

        private func password() throws -> String {
            if let passwordFile {
                let text =
                    passwordFile == "-"
                    ? readLine(strippingNewline: true) ?? "" : try String(contentsOfFile: passwordFile, encoding: .utf8)
                let first = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).first ?? ""
                guard !first.isEmpty else { throw ValidationError("the first line, which is the password, is empty") }
                return String(first)
            }
            guard isatty(0) == 1, let first = Self.ask("Password: ") else {
                throw ValidationError(
                    "no password was given; where there is no terminal to ask on, use --password-file")
            }
            guard Self.ask("Again: ") == first else { throw ValidationError("the two passwords differ") }
            return first
        }

        /// Reads a line that the terminal does not show.
        private static func ask(_ question: String) -> String? {
            var settings = termios()
            guard tcgetattr(0, &settings) == 0 else { return nil }
            var silent = settings
            // Without signals: one that ended the program here would leave the terminal silent.
            silent.c_lflag &= ~tcflag_t(ECHO | ISIG)
            tcsetattr(0, TCSAFLUSH, &silent)
            defer {
                tcsetattr(0, TCSAFLUSH, &settings)
                FleetPrinting.complain("")
            }
            _ = question.withCString { write(2, $0, strlen($0)) }
            let line = readLine(strippingNewline: true)
            // Control-C and Control-Z.
            return line?.contains { $0 == "\u{3}" || $0 == "\u{1A}" } == true ? nil : line
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the users and their roles.")
        @OptionGroup var history: HistoryOptions

        func run() throws {
            for user in try history.keptUsers.all() { print("\(TerminalText.line(user.name))  \(user.role.rawValue)") }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove a user; its sessions end.")
        @Argument var name: String
        @OptionGroup var history: HistoryOptions

        func run() throws {
            guard try history.keptUsers.remove(name) else {
                throw CommandFailure("there is no user \(TerminalText.line(name))")
            }
        }
    }
}

/// `dashboard token`: what programs use in place of a password.
struct DashboardTokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "Make tokens for programs: Authorization: Bearer TOKEN.",
        subcommands: [Add.self, List.self, Remove.self])

    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Make a token, and print it this once.")
        @Argument(help: "What it is for.") var name: String
        @Option(name: .customLong("right"), help: "read, act or metrics; may be repeated.")
        var rights: [DashboardRight]
        @OptionGroup var history: HistoryOptions

        func run() throws { print(try history.keptUsers.makeToken(name, rights: Set(rights))) }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the tokens and their rights.")
        @OptionGroup var history: HistoryOptions

        func run() throws {
            for token in try history.keptUsers.tokens() {
                print(
                    "\(TerminalText.line(token.name))  \(token.rights.map(\.rawValue).sorted().joined(separator: " "))")
            }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove a token.")
        @Argument var name: String
        @OptionGroup var history: HistoryOptions

        func run() throws {
            guard try history.keptUsers.removeToken(name) else {
                throw CommandFailure("there is no token \(TerminalText.line(name))")
            }
        }
    }
}
