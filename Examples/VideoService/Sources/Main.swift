import ArgumentParser
import Hoist
import HoistCommands
import HoistHummingbird
import Hummingbird
import Logging
import ServiceLifecycle

/// One binary for all roles: `VideoService serve`, `VideoService worker`, `VideoService up` for several workers, and
/// `VideoService hoist` to look into the queue.
@main
struct Main {
    struct VideoCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "VideoService", abstract: "Uploads videos and has workers transcode them.",
            subcommands: [
                ServeCommand<VideoApp>.self, WorkerCommand<VideoApp>.self, UpCommand<VideoApp>.self,
                DevCommand<VideoApp>.self, UpkeepCommand.self, HoistCommand.self,
            ])
    }

    static func main() async { await VideoCommand.main() }
}

enum VideoApp: ServiceApp {
    struct Options: ParsableArguments {
        @Option(name: .long, help: "The folder that videos lie in, shared by server and workers.")
        var data = "video-data"
        @Option(name: .long, help: "How many videos a worker transcodes at once.")
        var videos = 1
    }

    static func makeWorker(_ setup: inout WorkerSetup<Options>) async throws -> Worker {
        let processor = VideoProcessor(store: try VideoStore(root: setup.options.data))
        return setup.worker(queues: ["media"], lanes: [.process(setup.options.videos)]) {
            // In a process of its own: a broken video that crashes ffmpeg or the handler costs this job and no other.
            Handler(ProcessVideo.self, in: .process) { job, context in try await processor.process(job, context) }
        }
    }

    static func makeServices(_ setup: ServerSetup<Options>) async throws -> [any Service] {
        let jobs = JobClient(setup.backend, logger: setup.logger)
        let background = BackgroundTasks(jobs: jobs, logger: setup.logger)
        let server = VideoServer(
            store: try VideoStore(root: setup.options.data), jobs: jobs, background: background, logger: setup.logger)
        let application = Application(
            router: server.router(),
            configuration: .init(
                address: .hostname(setup.address.host, port: setup.address.port), serverName: "VideoService"),
            logger: setup.logger)
        return [background, application]
    }
}
