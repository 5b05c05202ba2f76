import Hoist
import Subprocess
import SystemPackage

/// ffmpeg and ffprobe. They stop when the task is cancelled; in the process lane they belong to the job's process
/// group, and end with it however it ends.
enum MediaTool {
    struct Failed: Error, CustomStringConvertible {
        var description: String
    }

    private static var platformOptions: PlatformOptions {
        var options = PlatformOptions()
        options.teardownSequence = [.gracefulShutDown(allowedDurationToNextStep: .seconds(1))]
        return options
    }

    /// Runs a tool to its end.
    /// - Parameter onLine: called for each line it prints.
    /// - Throws: ``Failed`` with the end of the tool's error output when it does not succeed; the error of `onLine`;
    ///   the error of Subprocess when the tool cannot be run; `CancellationError`.
    static func run(_ tool: String, _ arguments: [String], onLine: (String) async throws -> Void = { _ in })
        async throws
    {
        let result = try await Subprocess.run(
            .name(tool), arguments: Arguments(arguments), platformOptions: platformOptions, input: .none,
            output: .sequence,
            error: .sequence
        ) { execution in
            async let complaints = tail(of: execution.standardError)
            for try await line in execution.standardOutput.strings() { try await onLine(line) }
            return try await complaints
        }
        try Task.checkCancellation()
        guard result.terminationStatus.isSuccess else {
            let complaints = String(decoding: result.closureResult, as: UTF8.self)
            throw Failed(description: "\(tool) ended with \(result.terminationStatus): \(complaints)")
        }
    }

    private static func tail(of output: SubprocessOutputSequence, limit: Int = 2000) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        for try await buffer in output {
            buffer.withUnsafeBytes { bytes.append(contentsOf: $0) }
            if bytes.count > 2 * limit { bytes.removeFirst(bytes.count - limit) }
        }
        return Array(bytes.suffix(limit))
    }

    struct Description: Sendable {
        var duration: Double
        var width: Int
        var height: Int
    }

    /// What ffprobe says of the first video stream.
    /// - Throws: ``UnusableVideo`` when there is none.
    static func describe(_ path: String) async throws -> Description {
        var text = ""
        do {
            try await run(
                "ffprobe",
                [
                    "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height:format=duration",
                    "-of", "json", path,
                ]
            ) { text += $0 }
        } catch is Failed {
            throw UnusableVideo(description: "the file is not a video")
        }
        let found = try JSONText.parse(Array(text.utf8))
        guard let stream = found["streams"]?.arrayValue?.first, let width = stream["width"]?.integerValue,
            let height = stream["height"]?.integerValue,
            let duration = found["format"]?["duration"]?.stringValue.flatMap(Double.init), duration > 0
        else { throw UnusableVideo(description: "the file has no video of known length") }
        return Description(duration: duration, width: Int(width), height: Int(height))
    }
}
