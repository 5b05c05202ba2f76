#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Signals by the names that people and Python use.
enum ProcessSignal {
    static let terminate = SIGTERM

    private static let numbers: [String: Int32] = [
        "HUP": SIGHUP, "INT": SIGINT, "QUIT": SIGQUIT, "ILL": SIGILL, "TRAP": SIGTRAP, "ABRT": SIGABRT, "BUS": SIGBUS,
        "FPE": SIGFPE, "KILL": SIGKILL, "USR1": SIGUSR1, "SEGV": SIGSEGV, "USR2": SIGUSR2, "PIPE": SIGPIPE,
        "ALRM": SIGALRM, "TERM": SIGTERM, "STOP": SIGSTOP, "CONT": SIGCONT, "TSTP": SIGTSTP,
    ]

    /// - Parameter name: with or without `SIG`, in any case, or a number as text.
    static func number(of name: String) -> Int32? {
        let upper = name.uppercased()
        if let number = numbers[upper.hasPrefix("SIG") ? String(upper.dropFirst(3)) : upper] { return number }
        return Int32(name).flatMap { (1...31).contains($0) ? $0 : nil }
    }
}
