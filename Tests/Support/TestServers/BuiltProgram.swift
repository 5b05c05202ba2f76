public import Foundation

/// The programs that were built beside the tests.
public enum BuiltProgram {
    /// - Parameter name: of the program: `hoist`, `KillTestWorker`.
    public static func url(_ name: String) -> URL {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
            .appendingPathComponent(name)
    }

    /// Runs a program to its end, on a thread of its own: what it talks to may need the cooperative threads.
    /// - Returns: its exit status, and its standard output.
    /// - Throws: Foundation's error when it cannot start. Nothing has run then, so a retry is safe.
    public static func run(_ name: String, _ arguments: [String]) async throws -> (status: Int32, text: String) {
        try await output(of: url(name).path, arguments)
    }

    /// As ``run(_:_:)``, for any program of the system.
    /// - Throws: Foundation's error when it cannot start. Nothing has run then, so a retry is safe.
    public static func output(of path: String, _ arguments: [String]) async throws -> (status: Int32, text: String) {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread {
                continuation.resume(
                    with: Result {
                        let (process, output) = (Process(), Pipe())
                        process.executableURL = URL(fileURLWithPath: path)
                        process.arguments = arguments
                        process.standardOutput = output
                        process.standardError = FileHandle.nullDevice
                        try process.run()
                        let bytes = output.fileHandleForReading.readDataToEndOfFile()
                        process.waitUntilExit()
                        return (process.terminationStatus, String(decoding: bytes, as: UTF8.self))
                    })
            }
        }
    }
}
