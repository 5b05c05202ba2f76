import ArgumentParser
import Hoist
import HoistCommands
import HoistHummingbird
import Hummingbird
import Logging
import ServiceLifecycle

/// An image generation API: is its work a background task, or a job for a queue? Both are here, to be compared.
@main
struct Main {
    struct ImageCommand: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "ImageService", abstract: "Takes prompts and has workers paint pictures.",
            subcommands: [
                ServeCommand<ImageApp>.self, WorkerCommand<ImageApp>.self, UpCommand<ImageApp>.self,
                DevCommand<ImageApp>.self, UpkeepCommand.self, HoistCommand.self,
            ])
    }

    static func main() async { await ImageCommand.main() }
}

enum ImageApp: ServiceApp {
    struct Options: ParsableArguments {
        @Option(name: .long, help: "The folder that pictures lie in, shared by server and workers.")
        var data = "image-data"
        @Option(name: .long, help: "How many pictures a process paints at once.")
        var pictures = 1
        @Flag(
            name: .long, help: "Paint background tasks on the threads that also answer requests, as a plain Task does.")
        var sharedThreads = false
        @Flag(name: .long, help: "Let visitors kill the server and its workers. On the loopback alone.")
        var demo = false
    }

    static func makeWorker(_ setup: inout WorkerSetup<Options>) async throws -> Worker {
        let studio = Studio(store: try PictureStore(root: setup.options.data))
        return setup.worker(queues: ["images"], lanes: [.process(setup.options.pictures)]) {
            // In a process of its own: it takes a whole processor, and whatever becomes of it the worker lives on.
            Handler(PaintImage.self, in: .process) { job, context in
                try await studio.paint(job) { try await context.report(progress: $0, $1) }
            }
        }
    }

    static func makeServices(_ setup: ServerSetup<Options>) async throws -> [any Service] {
        let (address, options) = (setup.address, setup.options)
        guard !options.demo || ["127.0.0.1", "::1", "localhost"].contains(address.host) else {
            throw ValidationError("--demo lets visitors kill processes: it listens on the loopback alone")
        }
        let jobs = JobClient(setup.backend, logger: setup.logger)
        let background = BackgroundTasks(jobs: jobs, threads: options.pictures, logger: setup.logger)
        let server = ImageServer(
            store: try PictureStore(root: options.data), jobs: jobs, background: background, isDemo: options.demo,
            paintsOnSharedThreads: options.sharedThreads)
        let application = Application(
            router: server.router(),
            configuration: .init(address: .hostname(address.host, port: address.port), serverName: "ImageService"),
            logger: setup.logger)
        return [background, application]
    }
}
