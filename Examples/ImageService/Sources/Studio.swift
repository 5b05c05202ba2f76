import Crypto
import Hoist
import ImagePainter

/// Paints a picture that was ordered, wherever it is asked to: in a worker or in the server.
struct Studio: Sendable {
    let store: PictureStore

    /// - Parameter report: is told how far it is. What it throws ends the painting.
    func paint(
        _ job: PaintImage, report: (_ fraction: Double, _ message: String) async throws -> Void
    ) async throws -> Painting {
        guard PictureStore.isValid(id: job.picture), store.order(job.picture) != nil else {
            throw JobDirective.deadLetter("no picture \(job.picture) was ordered")
        }
        let begin = ContinuousClock.now
        let pixels = try await Painter(prompt: job.prompt, seed: job.seed, side: job.size).paint {
            try store.write($0.pixels, side: $0.side, job.picture, Self.preview($0.pass))
        } onStep: { step in
            try Task.checkCancellation()
            try await report(step.fraction, "pass \(step.pass) of \(Painter.passes)")
        }
        try store.write(pixels, side: job.size, job.picture, Self.image)
        return Painting(
            image: Self.image, size: job.size, seconds: (ContinuousClock.now - begin) / .seconds(1),
            pixels: SHA256.hash(data: pixels).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(),
            painter: "swift")
    }

    static let image = "image.png"
    static func preview(_ pass: Int) -> String { "preview-\(pass).png" }
    static let files = Set([image] + (1..<Painter.passes).map(preview))
}
