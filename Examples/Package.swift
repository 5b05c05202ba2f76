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
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")

func hoist(_ name: String) -> Target.Dependency { .product(name: name, package: "hoist") }

func example(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name, dependencies: dependencies, path: name + "/Sources", swiftSettings: houseSettings)
}

// A package of its own, so that who uses Hoist never sees what only its examples depend on.
let package = Package(
    name: "hoist-examples",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "ImageService", targets: ["ImageService"]),
        .executable(name: "VideoService", targets: ["VideoService"]),
    ],
    dependencies: [
        .package(name: "hoist", path: ".."),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
    ],
    targets: [
        // The textbook case: a server that takes videos, and workers that transcode them.
        example(
            "VideoService",
            [
                hoist("Hoist"), hoist("HoistCommands"), hoist("HoistHummingbird"), argumentParser, lifecycle, logging,
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "_NIOFileSystem", package: "swift-nio"),
            ]),
        // An image generation API, with its work in the server and in a queue.
        .executableTarget(
            name: "ImageService",
            dependencies: [
                "CPNG", "ImagePainter", hoist("Hoist"), hoist("HoistCommands"), hoist("HoistHummingbird"),
                argumentParser, lifecycle, logging,
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "NIOCore", package: "swift-nio"),
            ], path: "ImageService", exclude: ["CPNG", "Painter", "Python", "README.md"], sources: ["Sources"],
            resources: [.embedInCode("Page")], swiftSettings: houseSettings),
        // What it computes is of use at full speed alone, also in a debug build.
        .target(
            name: "ImagePainter", path: "ImageService/Painter", swiftSettings: houseSettings + [.unsafeFlags(["-O"])]),
        .systemLibrary(name: "CPNG", path: "ImageService/CPNG", providers: [.apt(["libpng-dev"]), .brew(["libpng"])]),
        // Jobs that crash, leak and hang.
        example("Torture", [hoist("Hoist"), hoist("HoistCommands"), argumentParser, lifecycle, logging]),
        // The worker that Celery's own tests run against.
        example(
            "CeleryConformance",
            [
                hoist("Hoist"), hoist("HoistRedis"), hoist("RESP"), lifecycle, logging,
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ]),
    ]
)
