#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Commands that ask what a worker is.
extension BuiltInCommand {
    static let lookingAtWorker: [BuiltInCommand] = [
        .inspect("ping") { _, _ in ["ok": "pong"] },
        .inspect("clock") { _, panel in ["clock": .integer(panel.time.now)] },
        .inspect("hello") { call, panel in try hello(call, panel) },
        .inspect("stats") { _, panel in await stats(panel) },
        .inspect("conf", "dump_conf") { call, panel in
            _ = try call.arguments.flag("with_defaults")
            return .object(configuration(of: panel))
        },
        .inspect("report") { _, panel in ["ok": .string(report(on: panel))] },
        .inspect("registered", "dump_tasks") { call, panel in
            let items = try call.arguments.textsIfPresent("taskinfoitems")
            _ = try call.arguments.flag("builtins")
            return .array(await panel.engine.handlerDescriptions(items).map { .string($0) })
        },
        .inspect("active_queues") { _, panel in
            .array(await panel.engine.consumedQueues.sorted().map(queueDescription))
        },
        .inspect("memsample") { _, _ in .string(megabytes(MachineLoad.residentMemory)) },
        .inspect("memdump") { call, _ in
            _ = try call.arguments.integerIfPresent("samples", in: 0...1_000_000)
            return .string("- rss (current): \(megabytes(MachineLoad.residentMemory)).\n")
        },
        .inspect("objgraph") { _, _ in
            throw ControlRefusal("objgraph: a Swift worker has no graph of Python objects")
        },
    ]

    private static func megabytes(_ bytes: Int) -> String {
        "\((Double(bytes) / 1_048_576 * 100).rounded() / 100)MB"
    }

    /// What a Python worker that starts asks of all others: answered at once, for it waits.
    private static func hello(_ call: ControlCall, _ panel: ControlPanel) throws -> WireValue {
        let from = try call.arguments.text("from_node")
        guard from != panel.node else { return .null }
        panel.revoked.merge(call.arguments.values["revoked"])
        return [
            "revoked": .array(panel.revoked.ids.map { .string($0) }), "clock": .integer(panel.time.tick()),
        ]
    }

    private static func queueDescription(_ name: String) -> WireValue {
        [
            "name": .string(name),
            "exchange": [
                "name": .string(name), "type": "direct", "arguments": nil, "durable": true, "passive": false,
                "auto_delete": false, "delivery_mode": nil, "no_declare": false,
            ],
            "routing_key": .string(name), "queue_arguments": nil, "binding_arguments": nil, "consumer_arguments": nil,
            "durable": true, "exclusive": false, "auto_delete": false, "no_ack": false, "alias": nil, "bindings": [],
            "no_declare": nil, "expires": nil, "message_ttl": nil, "max_length": nil, "max_length_bytes": nil,
            "max_priority": nil,
        ]
    }

    private static func stats(_ panel: ControlPanel) async -> WireValue {
        let status = await panel.engine.report
        let address = panel.backend.broker.address
        var stats: WireValue.Object = [
            "total": .object(
                .init(status.totals.sorted { $0.key < $1.key }.map { ($0, .integer(Int64(clamping: $1))) })),
            "pid": .integer(Int64(ProcessIdentity.id)), "clock": .string(String(panel.time.now)),
            "uptime": .integer(status.uptime),
            "pool": [
                "implementation": .string("hoist:" + status.lanes.map(\.kind.name).joined(separator: "+")),
                "max-concurrency": .integer(Int64(status.lanes.reduce(0) { $0 + $1.slots })),
                "processes": .array(status.processes.map { .integer(Int64($0)) }), "max-tasks-per-child": "N/A",
                "put-guarded-by-semaphore": false, "timeouts": [0, 0],
                "writes": [
                    "total": .integer(Int64(clamping: status.processed)), "avg": "0.00", "all": "", "raw": "",
                    "strategy": "fair", "inqueues": ["total": 0, "active": 0],
                ],
            ],
            "broker": .object(address.celeryDescription),
            "prefetch_count": .integer(Int64(status.lanes.reduce(0) { $0 + max(0, $1.slots - $1.used) })),
            "rusage": MachineLoad.usage,
        ]
        if let range = status.autoscaled {
            stats["autoscaler"] = [
                "max": .integer(Int64(range.upperBound)), "min": .integer(Int64(range.lowerBound)),
                "current": .integer(Int64(status.lanes.first { $0.kind == status.widestLane }?.slots ?? 0)), "qty": 0,
            ]
        }
        var hoist = status.hoist
        hoist["events_dropped"] = .integer(Int64(panel.recorder.dropped))
        hoist["requests_dropped"] = .integer(Int64(panel.dropped.tooMany + panel.dropped.unreadable))
        if let other = status.namesake { hoist["namesake"] = .string(other) }
        stats["hoist"] = .object(hoist)
        return .object(stats)
    }

    /// The settings that Celery's tools ask for, with honest values.
    private static func configuration(of panel: ControlPanel) -> WireValue.Object {
        let url = panel.backend.broker.address.url
        return [
            "broker_url": .string(url), "result_backend": .string(url), "deprecated_settings": nil,
            "accept_content": ["json", "msgpack", "yaml"], "include": [], "enable_utc": true, "timezone": "UTC",
            "broker_heartbeat": 0, "worker_hijack_root_logger": false, "worker_log_color": false,
            "worker_cancel_long_running_tasks_on_connection_loss": true, "worker_disable_prefetch": true,
            "broker_connection_retry_on_startup": true, "task_serializer": "json", "result_serializer": "json",
        ]
    }

    private static func report(on panel: ControlPanel) -> String {
        let settings = configuration(of: panel).map { "\($0.key): \($0.value)" }.joined(separator: "\n")
        let address = panel.backend.broker.address
        return """

            software -> celery:5.7 (protocol, spoken by hoist \(HoistVersion.text)) hoist:\(HoistVersion.text)
            platform -> system:\(MachineLoad.system)
            settings -> transport:\(address.transport) results:\(address.url)

            \(settings)

            """
    }
}

extension BrokerAddress {
    /// As `stats` of a Python worker shows its connection.
    fileprivate var celeryDescription: WireValue.Object {
        [
            "hostname": host.map { .string($0) } ?? .null, "userid": user.map { .string($0) } ?? .null,
            "virtual_host": .string(virtualHost), "port": port.map { .integer(Int64($0)) } ?? .null, "insist": false,
            "ssl": .bool(isEncrypted), "transport": .string(transport), "connect_timeout": 4, "transport_options": [:],
            "login_method": nil, "uri_prefix": nil, "heartbeat": 0.0, "failover_strategy": "round-robin",
            "alternates": [], "credential_provider": nil,
        ]
    }
}
