// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "hoist-benchmarks",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(name: "hoist", path: ".."),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // The bare statements through SQLite's C interface: the limit to measure against.
        .target(name: "CSQLiteLimit", linkerSettings: [.linkedLibrary("sqlite3")]),
        .executableTarget(
            name: "HoistBenchmarks",
            dependencies: [
                "CSQLiteLimit",
                .product(name: "Hoist", package: "hoist"),
                .product(name: "HoistMonitor", package: "hoist"),
                .product(name: "HoistRabbitMQ", package: "hoist"),
                .product(name: "HoistRedis", package: "hoist"),
                .product(name: "HoistSQLite", package: "hoist"),
                .product(name: "HoistTesting", package: "hoist"),
                .product(name: "RESP", package: "hoist"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: [.swiftLanguageMode(.v6)]
        ),
    ]
)
