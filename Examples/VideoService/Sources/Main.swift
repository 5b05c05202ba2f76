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
                UpkeepCommand.self, HoistCommand.self,
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

    static func makeWorker(
        _ backend: Backend, queues: [QueueSubscription]?, configuration: Worker.Configuration, options: Options,
        logger: Logger
    ) throws -> Worker {
        let processor = VideoProcessor(store: try VideoStore(root: options.data))
        return Worker(
            backend, queues: queues ?? ["media"], lanes: [.process(options.videos)], configuration: configuration,
            logger: logger
        ) {
            // In a process of its own: a broken video that crashes ffmpeg or the handler costs this job and no other.
            Handler(ProcessVideo.self, in: .process) { job, context in try await processor.process(job, context) }
                .onSuccess { context in context.logger.info("the video is done") }
        }
    }

    static func makeServices(
        _ backend: Backend, address: ServeAddress, options: Options, logger: Logger
    ) async throws -> [any Service] {
        let jobs = JobClient(backend, logger: logger)
        let background = BackgroundTasks(jobs: jobs, logger: logger)
        let server = VideoServer(
            store: try VideoStore(root: options.data), jobs: jobs, background: background, logger: logger)
        let application = Application(
            router: server.router(),
            configuration: .init(address: .hostname(address.host, port: address.port), serverName: "VideoService"),
            logger: logger)
        return [background, application]
    }
}
