/// A small random neural network that maps the place of a pixel to its colour. The prompt and the seed choose it.
///
/// The painter in Python paints the same pictures, byte for byte. Both use only + - * /, square root, floor, absolute
/// value and comparison of IEEE doubles, in the same order: a fused operation, or a sine of another library, would round
/// differently.
struct Network {
    private struct Layer {
        /// Nil for the last layer, whose values become colours.
        var kinds: [UInt64]?
        var inputs: Int
        var weights: [Double]
        var biases: [Double]
    }

    private static let width = 24
    private static let hiddenLayers = 7
    /// Samples computed at once: the values of one layer stay in the processor's cache.
    private static let chunk = 64

    private let fx: Double
    private let fy: Double
    private var layers: [Layer] = []

    init(prompt: String, seed: Int64) {
        var random = Generator(prompt: prompt, seed: seed)
        fx = 1 + random.uniform()
        fy = 1 + random.uniform()
        for index in 0..<Self.hiddenLayers {
            let (inputs, gain) = index == 0 ? (6, 0.7) : (Self.width, 0.37)
            var layer = Layer(kinds: [], inputs: inputs, weights: [], biases: [])
            for _ in 0..<Self.width {
                layer.kinds?.append(random.next() % 4)
                for _ in 0..<inputs { layer.weights.append(random.symmetric() * gain) }
                layer.biases.append(random.symmetric())
            }
            layers.append(layer)
        }
        var last = Layer(kinds: nil, inputs: Self.width, weights: [], biases: [])
        for _ in 0..<3 {
            for _ in 0..<Self.width { last.weights.append(random.symmetric() * 0.45) }
            last.biases.append(random.symmetric() * 0.3)
        }
        layers.append(last)
    }

    /// The colours, 0...1, of some rows of a square picture: red, green and blue of each pixel, row by row.
    func colours(side: Int, rows: Range<Int>) -> [Double] {
        let count = rows.count * side
        return [Double](unsafeUninitializedCapacity: count * 3) { colours, initialized in
            withUnsafeTemporaryAllocation(of: Double.self, capacity: 2 * Self.width * Self.chunk) { scratch in
                for first in stride(from: 0, to: count, by: Self.chunk) {
                    let here = first..<min(first + Self.chunk, count)
                    evaluate(here, side: side, firstRow: rows.lowerBound, scratch, into: colours)
                }
            }
            initialized = count * 3
        }
    }

    private func evaluate(
        _ pixels: Range<Int>, side: Int, firstRow: Int, _ scratch: UnsafeMutableBufferPointer<Double>,
        into colours: UnsafeMutableBufferPointer<Double>
    ) {
        let (chunk, count) = (Self.chunk, pixels.count)
        guard var values = scratch.baseAddress else { return }
        var next = values + Self.width * chunk
        for index in 0..<count {
            let pixel = pixels.lowerBound + index
            let x = ((Double(pixel % side) + 0.5) / Double(side)) * 2 - 1
            let y = ((Double(firstRow + pixel / side) + 0.5) / Double(side)) * 2 - 1
            values[index] = x
            values[chunk + index] = y
            values[2 * chunk + index] = (x * x + y * y).squareRoot()
            values[3 * chunk + index] = Self.triangle(x * fx)
            values[4 * chunk + index] = Self.triangle(y * fy)
            values[5 * chunk + index] = 1
        }
        for layer in layers {
            layer.weights.withUnsafeBufferPointer { weights in
                for unit in layer.biases.indices {
                    let sum = next + unit * chunk
                    for index in 0..<count { sum[index] = layer.biases[unit] }
                    for input in 0..<layer.inputs {
                        let (weight, value) = (weights[unit * layer.inputs + input], values + input * chunk)
                        for index in 0..<count { sum[index] = sum[index] + weight * value[index] }
                    }
                    if let kinds = layer.kinds { Self.activate(kinds[unit], sum, count) }
                }
            }
            swap(&values, &next)
        }
        for index in 0..<count {
            for channel in 0..<3 {
                let sum = values[channel * chunk + index]
                let value = (sum / (1 + abs(sum)) + 1) * 0.5
                colours[(pixels.lowerBound + index) * 3 + channel] = value * value * (3 - 2 * value)
            }
        }
    }

    private static func activate(_ kind: UInt64, _ values: UnsafeMutablePointer<Double>, _ count: Int) {
        switch kind {
        case 0: for index in 0..<count { values[index] = values[index] / (1 + abs(values[index])) }
        case 1: for index in 0..<count { values[index] = 2 / (1 + values[index] * values[index]) - 1 }
        case 2: for index in 0..<count { values[index] = triangle(values[index]) }
        default:
            for index in 0..<count { values[index] = values[index] / (1 + values[index] * values[index]).squareRoot() }
        }
    }

    private static func triangle(_ value: Double) -> Double {
        abs(value - 2 * ((value + 1) * 0.5).rounded(.down)) * 2 - 1
    }
}
