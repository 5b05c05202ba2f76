import Foundation
import Hoist
@testable import HoistDashboard
import HoistTesting
import Hummingbird
import HummingbirdTesting
import Logging

private let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A dashboard of a fleet in memory, which is told of jobs as workers would tell.
struct Bench {
    let backend = MemoryBackend()
    let dashboard: Dashboard
    /// Hashing of passwords that takes no time worth mentioning, also in a debug build.
    static let cost = PasswordHash.Cost(rounds: 1 << 6, blockSize: 8, parallelism: 1)
    var collector: Collector { dashboard.collectors[0] }
    var jobs: JobClient { JobClient(backend, logger: silent) }

    init(
        isReadOnly: Bool = false, access: DashboardAccess = .loopbackOnly, store: DashboardStore = .memory,
        backends: Int = 1
    ) throws {
        var sources = [DashboardBackend("prod", backend)]
        for number in 1..<max(backends, 1) { sources.append(DashboardBackend("other\(number)", MemoryBackend())) }
        dashboard = try Dashboard(
            sources, store: store, access: access, isReadOnly: isReadOnly, retention: DashboardRetention(),
            isDemo: false,
            cost: Self.cost, logger: silent)
    }

    /// Tells of a job of a worker.
    func tell(_ subject: String, _ id: String, _ more: WireValue.Object = [:]) {
        let fields: WireValue.Object = [
            "type": .string(subject), "uuid": .string(id), "hostname": "w@h",
            "timestamp": .double(Date().timeIntervalSince1970),
        ]
        collector.take(FleetEvent(fields.merging(more))!)
    }

    func beat(_ more: WireValue.Object = [:]) {
        tell(
            "worker-heartbeat", "",
            (["freq": 600.0, "active": 1, "processed": 9, "sw_ident": "hoist", "pid": 7] as WireValue.Object).merging(
                more))
    }

    func application(at path: String = "") -> some ApplicationProtocol {
        let router = Router(context: DashboardRequestContext.self)
        if path.isEmpty { dashboard.add(to: router) } else { dashboard.add(to: router.group(RouterPath(path))) }
        return Application(router: router, logger: silent)
    }
}

extension WireValue.Object {
    func merging(_ other: WireValue.Object) -> WireValue.Object {
        var all = self
        for (key, value) in other { all[key] = value }
        return all
    }
}

func text(_ response: TestResponse) -> String { String(buffer: response.body) }
