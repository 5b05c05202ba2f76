import Hoist
import HoistSQLite
import Logging

/// The code of the README.
enum FirstLook {
    struct VideoReport: Codable, Sendable {
        var seconds: Int
    }

    struct ProcessVideo: Job {
        static let name = "tasks.process_video_heavy"
        static let options = JobOptions(queue: "media", retry: .exponential(maxAttempts: 5), timeLimit: .seconds(1800))
        var videoID: String
        typealias Output = VideoReport
    }

    static func serve(logger: Logger) async throws -> VideoReport {
        let backend = try SQLiteBackend(path: "jobs.db")
        let jobs = JobClient(backend, logger: logger)
        let handle = try await jobs.enqueue(ProcessVideo(videoID: "42"), .priority(9), .after(.seconds(5)))
        for try await record in handle.updates { print(record.state, record.progress?.fraction ?? 0) }
        let report = try await handle.output(timeout: .seconds(60))
        return report
    }

    static func work(_ backend: SQLiteBackend, logger: Logger) async throws {
        let worker = Worker(backend, queues: ["media"], lanes: [.process(4)], logger: logger) {
            Handler(ProcessVideo.self, in: .process) { job, context in
                try await context.report(progress: 0.4, "frame 1200 of 3000")
                return VideoReport(seconds: 90)
            }
        }
        try await worker.runUntilSignalled()
    }
}
