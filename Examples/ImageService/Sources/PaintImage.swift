import Hoist

/// The contract between the server and its workers, in Swift and in Python.
struct PaintImage: Job {
    static let name = "images.paint"
    static let options = JobOptions(
        queue: "images", retry: .exponential(maxAttempts: 3), hardTimeLimit: .seconds(300),
        heartbeatLimit: .seconds(30), memoryLimit: .gibibytes(1))
    static let defaultArguments: WireObject = ["size": 512, "seed": 0]

    /// The name of the picture's folder.
    var picture: String
    var prompt: String
    var size: Int
    var seed: Int64

    typealias Output = Painting
}

/// What a worker has painted.
struct Painting: Codable, Sendable {
    var image: String
    var size: Int
    var seconds: Double
    /// SHA-256 of the pixels, in hexadecimal: the same from every painter.
    var pixels: String
    /// `swift` or `python`.
    var painter: String
}
