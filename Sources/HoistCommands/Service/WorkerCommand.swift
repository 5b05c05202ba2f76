public import ArgumentParser
import Hoist
import HoistProbes
import Logging
import PrometheusText
import ServiceLifecycle

/// `worker`: takes jobs until it is told to stop.
public struct WorkerCommand<App: ServiceApp>: AsyncParsableCommand {
    public static var configuration: CommandConfiguration {
        CommandConfiguration(
            commandName: "worker", abstract: "Take jobs from queues and perform them.",
            discussion: "SIGTERM or SIGINT drains the worker; a second one hands unfinished jobs back at once.")
    }

    @OptionGroup public var worker: WorkerOptions<App>

    public init() {}

    public mutating func run() async throws {
        ParentWatch.begin()
        try await HopelessStart.mapped { [self] in try await work() }
    }

    private func work() async throws {
        try await App.prepare(worker.options)
        let logger = worker.logging.logger("worker")
        // A child of the process lane uses the backend of its worker and opens none.
        let backend = try WorkerChild.backend ?? worker.backend.open()
        if !WorkerChild.isChild { worker.backend.warnIfAlone(backend, logger) }
        let role = try await WorkerRole.make(worker, backend, logger)
        try await SignalledServices.run(role.services, logger: logger) { role.worker.stop(.immediately) }
    }
}

/// A worker of a program with what runs beside it.
struct WorkerRole {
    var worker: Worker
    /// In the order in which they start.
    var services: [any Service]

    static func make<App: ServiceApp>(
        _ options: WorkerOptions<App>, _ backend: Backend, _ logger: Logger
    ) async throws -> WorkerRole {
        // A child of the process lane answers nobody.
        let address = WorkerChild.isChild ? nil : try options.probeAddress
        let metrics = address.map { _ in PrometheusFactory() }
        var setup = WorkerSetup(
            backend: backend, options: options.options, logger: logger, choices: try options.choices,
            probedMetrics: metrics)
        let worker = try await App.makeWorker(&setup)
        try setup.choices.check(worker)
        // First, for what begins first ends last: probes are answered while the worker drains.
        let probes = address.map { WorkerProbes(worker, at: $0, metrics: metrics, logger: logger) }
        return WorkerRole(worker: worker, services: (probes.map { [$0] } ?? []) + setup.services + [worker])
    }
}
