import ArgumentParser
import Configuration
import Hoist

/// The variables of the environment that stand for options: `HOIST_` and the option's name. An empty one counts as not
/// set.
enum CommandEnvironment {
    private static var reader: ConfigReader { ConfigReader(provider: EnvironmentVariablesProvider()) }

    static func text(_ option: String) -> String? {
        reader.string(forKey: ConfigKey("hoist.\(option)")).flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The parts of a variable that are separated by commas; empty when it is not set.
    static func list(_ option: String) -> [String] { text(option).map(parts) ?? [] }

    /// - Throws: `ValidationError` when the variable holds no number.
    static func number(_ option: String) throws -> Int? {
        guard let text = text(option) else { return nil }
        guard let number = Int(text) else {
            throw ValidationError(
                "$HOIST_\(option.uppercased()) must be a whole number, not \(TerminalText.line(text))")
        }
        return number
    }

    static func parts(_ text: String) -> [String] {
        text.split(separator: ",").map { part in
            String(part.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
        }
        .filter { !$0.isEmpty }
    }
}
