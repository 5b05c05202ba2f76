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

let package = Package(
    name: "hoist",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "Hoist", targets: ["Hoist"]),
        .library(name: "HoistSQLite", targets: ["HoistSQLite"]),
        .library(name: "RESP", targets: ["RESP"]),
        .library(name: "HoistRedis", targets: ["HoistRedis"]),
        .library(name: "HoistSealing", targets: ["HoistSealing"]),
        .library(name: "HoistHummingbird", targets: ["HoistHummingbird"]),
        .library(name: "HoistTesting", targets: ["HoistTesting"]),
        .library(name: "HoistCommands", targets: ["HoistCommands"]),
        .executable(name: "hoist", targets: ["HoistCLI"]),
        .executable(name: "VideoService", targets: ["VideoService"]),
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
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
    ],
    targets: [
        // The queue itself. Knows no NIO, SQLite or HTTP.
        .target(
            name: "Hoist",
            dependencies: [
                "CCompression", "CProcess",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Metrics", package: "swift-metrics"),
                .product(name: "OrderedCollections", package: "swift-collections"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "Tracing", package: "swift-distributed-tracing"),
                .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: houseSettings
        ),
        // What Swift cannot say of processes.
        .target(name: "CProcess"),
        // zlib, bzip2 and xz of the system.
        .systemLibrary(
            name: "CCompression",
            providers: [.apt(["zlib1g-dev", "libbz2-dev", "liblzma-dev"]), .brew(["xz"])]
        ),
        // The embedded backend.
        .target(
            name: "HoistSQLite",
            dependencies: [
                "Hoist",
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ],
            swiftSettings: houseSettings
        ),
        // Redis' protocol. Knows nothing of jobs.
        .target(
            name: "RESP",
            dependencies: [
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: houseSettings
        ),
        // Redis and Valkey, in Celery's form.
        .target(
            name: "HoistRedis",
            dependencies: [
                "Hoist", "RESP", .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
            ],
            resources: [.embedInCode("Scripts")],
            swiftSettings: houseSettings
        ),
        // Signed and encrypted jobs.
        .target(
            name: "HoistSealing",
            dependencies: ["Hoist", .product(name: "Crypto", package: "swift-crypto")],
            swiftSettings: houseSettings
        ),
        // Job routes and work after the response, for Hummingbird servers.
        .target(
            name: "HoistHummingbird",
            dependencies: [
                "Hoist",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: houseSettings
        ),
        // For users' tests, and the contract that every backend passes.
        .target(
            name: "HoistTesting",
            dependencies: ["Hoist", .product(name: "Logging", package: "swift-log")],
            swiftSettings: houseSettings
        ),
        // Command groups: for the hoist tool, and for users' own binaries.
        .target(
            name: "HoistCommands",
            dependencies: [
                "Hoist", "HoistRedis", "HoistSQLite",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Configuration", package: "swift-configuration"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            swiftSettings: houseSettings
        ),
        .executableTarget(
            name: "HoistCLI",
            dependencies: ["HoistCommands", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            swiftSettings: houseSettings
        ),

        .executableTarget(
            name: "VideoService",
            dependencies: [
                "Hoist", "HoistCommands", "HoistHummingbird",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "_NIOFileSystem", package: "swift-nio"),
            ],
            path: "Examples/VideoService/Sources",
            swiftSettings: houseSettings
        ),

        .executableTarget(
            name: "Torture",
            dependencies: [
                "Hoist", "HoistCommands",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            path: "Examples/Torture/Sources",
            swiftSettings: houseSettings
        ),

        .executableTarget(
            name: "CeleryConformance",
            dependencies: [
                "Hoist", "HoistRedis", "RESP",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            path: "Examples/CeleryConformance/Sources",
            swiftSettings: houseSettings
        ),

        .testTarget(
            name: "HoistTests",
            dependencies: [
                "Hoist", "HoistTesting",
                .product(name: "MetricsTestKit", package: "swift-metrics"),
                .product(name: "InMemoryTracing", package: "swift-distributed-tracing"),
                .product(name: "Tracing", package: "swift-distributed-tracing"),
                .product(name: "Logging", package: "swift-log"),
            ],
            exclude: ["Fixtures", "Wire/celery_peer.py"],
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "HoistSQLiteTests",
            dependencies: [
                "Hoist", "HoistSQLite", "HoistTesting",
                .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "HoistSealingTests",
            dependencies: ["Hoist", "HoistSealing", "HoistTesting", .product(name: "Logging", package: "swift-log")],
            swiftSettings: houseSettings
        ),
        // Servers and peers that tests start for themselves.
        .target(
            name: "TestServers",
            dependencies: [
                "RESP", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            path: "Tests/TestServers",
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "RESPTests",
            dependencies: [
                "RESP", "TestServers", .product(name: "NIOCore", package: "swift-nio"),
            ],
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "HoistRedisTests",
            dependencies: [
                "Hoist", "HoistRedis", "HoistSQLite", "HoistTesting", "RESP", "TestServers",
                .product(name: "Logging", package: "swift-log"),
            ],
            exclude: ["Python"],
            swiftSettings: houseSettings
        ),
        .executableTarget(
            name: "KillTestWorker",
            dependencies: [
                "Hoist", "HoistRedis", "HoistSQLite",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ],
            path: "Tests/KillTestWorker",
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "KillTests",
            dependencies: [
                "Hoist", "HoistRedis", "HoistSQLite", "HoistTesting", "KillTestWorker", "RESP", "TestServers",
                .product(name: "Logging", package: "swift-log"),
            ],
            exclude: ["Python"],
            swiftSettings: houseSettings
        ),
        .target(
            name: "IsolationTestJobs", dependencies: ["Hoist", .product(name: "Logging", package: "swift-log")],
            path: "Tests/IsolationTestJobs", swiftSettings: houseSettings),
        .executableTarget(
            name: "IsolationTestChild",
            dependencies: [
                "Hoist", "HoistRedis", "HoistSQLite", "IsolationTestJobs",
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Tests/IsolationTestChild",
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "IsolationTests",
            dependencies: [
                "Hoist", "HoistRedis", "HoistSQLite", "HoistTesting", "IsolationTestChild", "IsolationTestJobs", "RESP",
                "TestServers",
                "Torture",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "HoistHummingbirdTests",
            dependencies: [
                "Hoist", "HoistHummingbird", "HoistTesting",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdTesting", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ],
            swiftSettings: houseSettings
        ),
        .testTarget(
            name: "ServiceTests",
            dependencies: [
                "Hoist", "HoistRedis", "HoistSQLite", "HoistTesting", "HoistCLI", "TestServers", "VideoService",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: houseSettings
        ),
    ]
)
