/// Paints a square picture, coarse to fine.
public struct Painter: Sendable {
    /// What is done at the moment.
    public struct Step: Sendable {
        /// 0...1.
        public var fraction: Double
        /// From 1 to ``Painter/passes``.
        public var pass: Int
    }

    public struct Preview: Sendable {
        /// The pass that made it, from 1.
        public var pass: Int
        public var side: Int
        /// Red, green and blue of each pixel.
        public var pixels: [UInt8]
    }

    private static let strides = [32, 16, 8, 4]
    /// One for each preview, and one for the picture.
    public static let passes = strides.count + 1
    public static let sizes = 32...2048
    /// Rows of the picture between two steps.
    private static let band = 16
    /// A pixel is the mean of this number of samples, squared.
    private static let fine = 4

    private let network: Network
    private let side: Int

    /// - Parameter side: in pixels, within ``sizes``; others count as the nearest of these.
    public init(prompt: String, seed: Int64, side: Int) {
        network = Network(prompt: prompt, seed: seed)
        self.side = min(max(side, Self.sizes.lowerBound), Self.sizes.upperBound)
    }

    /// - Parameters:
    ///   - onPreview: gets each preview when it is done.
    ///   - onStep: called before each pass and after each band of the last one. What it throws ends the painting.
    /// - Returns: red, green and blue of each pixel.
    /// - Throws: what `onPreview` and `onStep` throw.
    public func paint(
        onPreview: (Preview) async throws -> Void, onStep: (Step) async throws -> Void
    ) async throws -> [UInt8] {
        let sides = Self.strides.map { side / $0 }
        let samples = Double(sides.reduce(0) { $0 + $1 * $1 } + Self.fine * Self.fine * side * side)
        var done = 0
        for (index, small) in sides.enumerated() {
            try await onStep(Step(fraction: Double(done) / samples, pass: index + 1))
            let colours = network.colours(side: small, rows: 0..<small)
            done += small * small
            try await onPreview(Preview(pass: index + 1, side: small, pixels: colours.map(Self.byte)))
        }
        try await onStep(Step(fraction: Double(done) / samples, pass: Self.passes))
        var picture: [UInt8] = []
        picture.reserveCapacity(side * side * 3)
        for first in stride(from: 0, to: side, by: Self.band) {
            let last = min(first + Self.band, side)
            let fine = network.colours(side: Self.fine * side, rows: Self.fine * first..<Self.fine * last)
            append(fine, rows: last - first, to: &picture)
            done += Self.fine * Self.fine * (last - first) * side
            try await onStep(Step(fraction: Double(done) / samples, pass: Self.passes))
        }
        return picture
    }

    /// The samples of a pixel are added row by row.
    private func append(_ samples: [Double], rows: Int, to picture: inout [UInt8]) {
        let (fine, width) = (Self.fine, Self.fine * side * 3)
        for row in 0..<rows {
            for column in 0..<side {
                for channel in 0..<3 {
                    var sum = 0.0
                    for below in 0..<fine {
                        for beside in 0..<fine {
                            sum += samples[(fine * row + below) * width + (fine * column + beside) * 3 + channel]
                        }
                    }
                    picture.append(Self.byte(sum / Double(fine * fine)))
                }
            }
        }
    }

    private static func byte(_ colour: Double) -> UInt8 { UInt8((colour * 255 + 0.5).rounded(.down)) }
}
