public import Foundation

/// The Python that `scripts/test` prepares: Celery with Redis, FastAPI and what the tests need besides.
public enum PythonPeer {
    public static let interpreter: String? = ProcessInfo.processInfo.environment["HOIST_TEST_PYTHON"]
    public static let isMissing = "HOIST_TEST_PYTHON names no Python with celery[redis]; scripts/test prepares one"

    /// Starts a Python process.
    /// - Parameters:
    ///   - folder: where it runs, and finds its modules.
    ///   - output: receives its standard output; nil to drop it.
    /// - Throws: `TestServerError` when HOIST_TEST_PYTHON names no interpreter; Foundation's error when the log cannot
    ///   be opened or the process cannot start. Nothing runs then, so a retry is safe.
    public static func start(
        _ arguments: [String], in folder: String, environment: [String: String] = [:], output: Pipe? = nil,
        log: URL? = nil
    ) throws -> Process {
        guard let interpreter else { throw TestServerError(description: isMissing) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: interpreter)
        process.arguments = arguments
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        process.environment = ProcessInfo.processInfo.environment.merging(
            ["PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1"].merging(environment) { $1 }
        ) { $1 }
        if let log {
            if !FileManager.default.fileExists(atPath: log.path) {
                _ = FileManager.default.createFile(atPath: log.path, contents: nil)
            }
            let handle = try FileHandle(forWritingTo: log)
            try handle.seekToEnd()
            process.standardError = handle
            process.standardOutput = output ?? handle
        } else {
            process.standardError = FileHandle.nullDevice
            if let output { process.standardOutput = output } else { process.standardOutput = FileHandle.nullDevice }
        }
        try process.run()
        return process
    }

    /// Runs a Python program to its end.
    /// - Returns: its standard output.
    /// - Throws: `TestServerError` when no interpreter is named, or when the program ends with another status than 0,
    ///   with the end of its error output; Foundation's error when it cannot start. The program may have had its
    ///   effects before it failed.
    public static func run(_ arguments: [String], in folder: String, environment: [String: String] = [:]) throws
        -> String
    {
        let pipe = Pipe()
        let log = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-python-\(UUID().uuidString).log")
        defer { try? FileManager.default.removeItem(at: log) }
        let process = try start(arguments, in: folder, environment: environment, output: pipe, log: log)
        let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            let complaints = (try? String(contentsOf: log, encoding: .utf8)) ?? ""
            throw TestServerError(
                description: "\(arguments) ended with \(process.terminationStatus): \(complaints.suffix(4000))")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    public static func stop(_ process: Process, _ signal: Int32 = SIGKILL) {
        guard process.isRunning else { return }
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
    }
}
