import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Feeds a reader with mutated bytes for a time. What traps ends the process, so the seed is printed first: with it the
/// run can be repeated.
package enum Fuzzing {
    /// The time for each reader: `HOIST_FUZZ_SECONDS`, half a second by default.
    package static var seconds: Double {
        ProcessInfo.processInfo.environment["HOIST_FUZZ_SECONDS"].flatMap { Double($0) } ?? 0.5
    }

    /// A generator that gives the same numbers for the same seed (SplitMix64).
    package struct Generator: RandomNumberGenerator {
        private var state: UInt64

        package init(seed: UInt64) { state = seed }

        package mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
            return mixed ^ (mixed >> 31)
        }
    }

    /// - Parameters:
    ///   - name: what is fed, for the printed line.
    ///   - corpus: sound inputs to begin with.
    ///   - tokens: pieces that are put in, besides those of the corpus.
    ///   - body: may throw nothing and must return.
    /// - Returns: how many inputs were fed.
    @discardableResult
    package static func run(
        _ name: String, corpus: [[UInt8]], tokens: [String] = defaultTokens, _ body: ([UInt8]) -> Void
    ) -> Int {
        let asked = ProcessInfo.processInfo.environment["HOIST_FUZZ_SEED"].flatMap { UInt64($0) }
        let seed = asked ?? UInt64.random(in: 0 ... .max)
        print("fuzzing \(name): HOIST_FUZZ_SEED=\(seed)")
        var generator = Generator(seed: seed)
        let pieces = tokens.map { Array($0.utf8) }
        let end = ContinuousClock.now + .seconds(seconds)
        var count = 0
        while ContinuousClock.now < end {
            for _ in 0..<50 {
                var bytes = corpus.randomElement(using: &generator) ?? []
                for _ in 0..<Int.random(in: 0...8, using: &generator) {
                    mutate(&bytes, corpus, pieces, &generator)
                }
                body(bytes)
                count += 1
            }
        }
        return count
    }

    package static let defaultTokens = [
        "1e300", "-1e300", "NaN", "-Infinity", "9223372036854775807", "-9223372036854775808", "18446744073709551616",
        "\"", "\\", "\\ud800", "\\u0000", "{", "}", "[", "]", "[[[[[[[[", ":", ",", "null", "true", "\u{0}", "\r\n",
        "é",
        "e\u{301}", "-", "0", "\"hoist\":{", "\"eta\":", "1969-12-31T23:59:59.999999Z", "9999-12-31T23:59:59+23:59",
    ]

    private static func mutate(
        _ bytes: inout [UInt8], _ corpus: [[UInt8]], _ pieces: [[UInt8]], _ generator: inout Generator
    ) {
        let at = Int.random(in: 0...bytes.count, using: &generator)
        switch Int.random(in: 0..<8, using: &generator) {
        case 0 where at < bytes.count: bytes[at] = UInt8.random(in: 0...255, using: &generator)
        case 1 where at < bytes.count: bytes[at] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        case 2: bytes.removeSubrange(at..<min(bytes.count, at + Int.random(in: 0...16, using: &generator)))
        case 3: bytes.insert(contentsOf: pieces.randomElement(using: &generator) ?? [], at: at)
        case 4: bytes = Array(bytes.prefix(at))
        case 5:
            let end = min(bytes.count, at + Int.random(in: 0...64, using: &generator))
            bytes.insert(contentsOf: Array(bytes[at..<end]), at: at)
        case 6:
            // The end of another input.
            let other = corpus.randomElement(using: &generator) ?? []
            bytes = Array(bytes.prefix(at)) + other.suffix(Int.random(in: 0...other.count, using: &generator))
        default:
            let end = min(bytes.count, at + 8)
            bytes.replaceSubrange(at..<end, with: pieces.randomElement(using: &generator) ?? [])
        }
    }
}
