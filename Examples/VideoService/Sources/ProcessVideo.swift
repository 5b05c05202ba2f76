import Hoist

/// The contract between the server and its workers.
struct ProcessVideo: Job {
    static let name = "tasks.process_video_heavy"
    static let options = JobOptions(
        queue: "media", retry: .exponential(maxAttempts: 3), neverRetry: [UnusableVideo.self],
        timeLimit: .seconds(1800),
        hardTimeLimit: .seconds(1860), heartbeatLimit: .seconds(120), memoryLimit: .gibibytes(4))

    var videoID: String

    typealias Output = VideoReport
}

/// The outcome of a video.
struct VideoReport: Codable, Sendable {
    var duration: Double
    var width: Int
    var height: Int
    var inputBytes: Int64
    var outputBytes: Int64
    var video: String
    var poster: String
    var contactSheet: String
}

/// The file is no video that can be processed. A retry cannot help.
struct UnusableVideo: Error, CustomStringConvertible {
    var description: String
}
