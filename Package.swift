// swift-tools-version: 6.2
import PackageDescription

let houseSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
    .treatWarning("DeprecatedDeclaration", as: .warning),
]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let signals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let tracing = Target.Dependency.product(name: "Tracing", package: "swift-distributed-tracing")

func module(
    _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = [], resources: [Resource] = []
) -> Target {
    .target(
        name: name, dependencies: dependencies, exclude: exclude, resources: resources, swiftSettings: houseSettings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: houseSettings)
}

/// A module that only tests use.
func support(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, path: "Tests/Support/" + name, swiftSettings: houseSettings)
}

/// A program that only tests start.
func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: "Tests/Support/" + name, swiftSettings: houseSettings)
}

let package = Package(
    name: "hoist",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "Hoist", targets: ["Hoist"]),
        .library(name: "HoistSQLite", targets: ["HoistSQLite"]),
        .library(name: "Timetables", targets: ["Timetables"]),
        .library(name: "RESP", targets: ["RESP"]),
        .library(name: "AMQP", targets: ["AMQP"]),
        .library(name: "HoistRedis", targets: ["HoistRedis"]),
        .library(name: "HoistRabbitMQ", targets: ["HoistRabbitMQ"]),
        .library(name: "HoistSealing", targets: ["HoistSealing"]),
        .library(name: "HoistHummingbird", targets: ["HoistHummingbird"]),
        .library(name: "PrometheusText", targets: ["PrometheusText"]),
        .library(name: "HoistProbes", targets: ["HoistProbes"]),
        .library(name: "HoistMonitor", targets: ["HoistMonitor"]),
        .library(name: "HoistDashboard", targets: ["HoistDashboard"]),
        .library(name: "HoistTesting", targets: ["HoistTesting"]),
        .library(name: "HoistCommands", targets: ["HoistCommands"]),
        .executable(name: "hoist", targets: ["HoistCLI"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-distributed-tracing", from: "1.7.3"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/hummingbird-project/swift-mustache", from: "2.1.1"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
    ],
    targets: [
        // The queue itself. Knows no NIO, SQLite, HTTP or YAML.
        module(
            "Hoist",
            [
                "CCompression", "CProcess", "Timetables", lifecycle, logging, signals, tracing,
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "OrderedCollections", package: "swift-collections"),
            ]),
        // When something that repeats is to run. Pure: knows dates and time zones, nothing of jobs.
        module("Timetables", []),
        // What Swift cannot say of processes.
        .target(name: "CProcess"),
        // zlib, bzip2 and xz of the system.
        .systemLibrary(
            name: "CCompression",
            providers: [.apt(["zlib1g-dev", "libbz2-dev", "liblzma-dev"]), .brew(["xz"])]
        ),
        // The embedded backend.
        module(
            "HoistSQLite",
            [
                "Hoist", .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ]),
        // What clients of servers share: addresses, TLS, threads.
        module("Endpoints", [nioCore, nioPosix, .product(name: "NIOSSL", package: "swift-nio-ssl")]),
        // Redis' protocol. Knows nothing of jobs.
        module(
            "RESP",
            [
                "Endpoints", nioCore, nioPosix, .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        // RabbitMQ's protocol. Knows nothing of jobs.
        module(
            "AMQP",
            [
                "Endpoints", nioCore, nioPosix, .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        // Redis and Valkey, in Celery's form.
        module(
            "HoistRedis", ["Endpoints", "Hoist", "HoistYAML", "RESP", nioCore], resources: [.embedInCode("Scripts")]),
        // RabbitMQ, in Celery's form. Keeps no results.
        module("HoistRabbitMQ", ["AMQP", "Endpoints", "Hoist", "HoistYAML"]),
        // Messages in YAML, as Celery's users may send them.
        module("HoistYAML", ["Hoist", .product(name: "Yams", package: "Yams")]),
        // Signed and encrypted jobs.
        module("HoistSealing", ["Hoist", .product(name: "Crypto", package: "swift-crypto")]),
        // Job routes and work after the response, for Hummingbird servers.
        module("HoistHummingbird", ["Hoist", hummingbird, httpTypes, lifecycle, logging, nioCore]),
        // Metrics of swift-metrics as Prometheus reads them. Knows nothing of jobs.
        module("PrometheusText", [.product(name: "CoreMetrics", package: "swift-metrics")]),
        // Probes of a worker over HTTP.
        module(
            "HoistProbes",
            [
                "Hoist", "PrometheusText", lifecycle, logging, nioCore, nioPosix,
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ]),
        // What events tell of workers and jobs. Pure: no I/O, no timers.
        module("HoistMonitor", ["Hoist"]),
        // The web dashboard: collector, history, pages, API.
        module(
            "HoistDashboard",
            [
                "Hoist", "HoistMonitor", "PrometheusText", hummingbird, httpTypes, lifecycle, logging, nioCore,
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
                .product(name: "GRDB", package: "GRDB.swift"), .product(name: "GRDBSQLite", package: "GRDB.swift"),
                .product(name: "Histogram", package: "hdrhistogram-swift"),
                .product(name: "Mustache", package: "swift-mustache"),
            ], exclude: ["Assets/README.md", "Assets/FONT-LICENSES.txt"],
            resources: [.embedInCode("Templates"), .embedInCode("Assets/Files")]),
        // For users' tests, and the contract that every backend passes.
        module("HoistTesting", ["Hoist", logging]),
        // Command groups: for the hoist tool, and for users' own binaries.
        module(
            "HoistCommands",
            [
                "Hoist", "HoistDashboard", "HoistMonitor", "HoistProbes", "HoistRabbitMQ", "HoistRedis", "HoistSQLite",
                "PrometheusText", "Timetables", argumentParser, hummingbird, lifecycle, logging, signals,
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "CoreMetrics", package: "swift-metrics"),
            ]),
        .executableTarget(
            name: "HoistCLI", dependencies: ["HoistCommands", argumentParser], swiftSettings: houseSettings),

        // Servers and peers that tests start for themselves.
        support("TestServers", ["RESP", nioCore, nioPosix]),
        // The code that README and documentation show.
        support(
            "DocumentedCode",
            [
                "AMQP", "Hoist", "HoistCommands", "HoistDashboard", "HoistHummingbird", "HoistProbes", "HoistRabbitMQ",
                "HoistRedis", "HoistSQLite", "HoistSealing", "HoistTesting", "PrometheusText", "RESP", "Timetables",
                argumentParser, httpTypes, hummingbird, lifecycle, logging, tracing,
                .product(name: "Metrics", package: "swift-metrics"),
            ]),
        support("IsolationTestJobs", ["Hoist", logging]),
        program("IsolationTestChild", ["Hoist", "HoistRedis", "HoistSQLite", "IsolationTestJobs", logging]),
        program(
            "KillTestWorker", ["Hoist", "HoistRabbitMQ", "HoistRedis", "HoistSQLite", lifecycle, logging, signals]),
        tests(
            "HoistTests",
            [
                "Hoist", "HoistTesting", "HoistYAML", logging, tracing,
                .product(name: "InMemoryTracing", package: "swift-distributed-tracing"),
                .product(name: "MetricsTestKit", package: "swift-metrics"),
            ], exclude: ["Fixtures", "Wire/celery_peer.py"]),
        tests(
            "HoistSQLiteTests",
            ["Hoist", "HoistSQLite", "HoistTesting", logging, .product(name: "GRDB", package: "GRDB.swift")]),
        .testTarget(
            name: "TimetablesTests",
            dependencies: ["HoistTesting", "Timetables", .product(name: "Crypto", package: "swift-crypto")],
            exclude: ["Tables/README.md"], resources: [.copy("Tables")], swiftSettings: houseSettings),
        tests("PrometheusTextTests", ["PrometheusText", .product(name: "CoreMetrics", package: "swift-metrics")]),
        tests("HoistProbesTests", ["Hoist", "HoistProbes", "HoistTesting", "PrometheusText", lifecycle, logging]),
        tests("HoistMonitorTests", ["Hoist", "HoistMonitor", "HoistTesting"]),
        tests(
            "HoistDashboardTests",
            [
                "Hoist", "HoistCLI", "HoistDashboard", "HoistMonitor", "HoistRedis", "HoistTesting", "TestServers",
                hummingbird, httpTypes, logging, nioCore,
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "HummingbirdTesting", package: "hummingbird"),
            ], exclude: ["Browser", "Flower"]),
        tests("DocumentationTests", ["Hoist", "HoistTesting", "DocumentedCode", logging]),
        tests("HoistSealingTests", ["Hoist", "HoistSealing", "HoistTesting", logging]),
        tests(
            "HoistCommandsTests",
            [
                "Hoist", "HoistCommands", "HoistMonitor", "HoistSQLite", "HoistTesting", "TestServers", argumentParser,
                lifecycle,
                logging,
            ]),
        tests("AMQPTests", ["AMQP", "Endpoints", "HoistTesting", "TestServers", nioCore, nioPosix]),
        tests("RESPTests", ["Endpoints", "HoistTesting", "RESP", "TestServers", nioCore]),
        tests(
            "HoistRedisTests", ["Hoist", "HoistRedis", "HoistSQLite", "HoistTesting", "RESP", "TestServers", logging],
            exclude: ["Python"]),
        tests(
            "HoistRabbitMQTests",
            ["AMQP", "Hoist", "HoistRabbitMQ", "HoistRedis", "HoistSQLite", "HoistTesting", "TestServers", logging],
            exclude: ["Fixtures", "Python"]),
        tests(
            "KillTests",
            [
                "AMQP", "Hoist", "HoistMonitor", "HoistRabbitMQ", "HoistRedis", "HoistSQLite", "HoistTesting",
                "KillTestWorker", "RESP",
                "TestServers", logging,
                .product(name: "GRDB", package: "GRDB.swift"),
            ],
            exclude: ["Python"]),
        tests(
            "IsolationTests",
            [
                "Hoist", "HoistRedis", "HoistSQLite", "HoistTesting", "IsolationTestChild", "IsolationTestJobs", "RESP",
                "TestServers", logging,
            ]),
        tests(
            "HoistHummingbirdTests",
            [
                "Hoist", "HoistHummingbird", "HoistTesting", hummingbird, httpTypes, lifecycle, logging, nioCore,
                .product(name: "HummingbirdTesting", package: "hummingbird"),
            ]),
        tests(
            "ServiceTests",
            [
                "Hoist", "HoistCLI", "HoistRabbitMQ", "HoistRedis", "HoistSQLite", "HoistTesting", "TestServers",
                logging,
            ],
            exclude: ["Browser"]),
    ]
)
