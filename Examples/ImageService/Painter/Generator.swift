/// SplitMix64, seeded by the prompt and the seed with FNV-1a.
struct Generator {
    private var state: UInt64

    init(prompt: String, seed: Int64) {
        var hash: UInt64 = 14_695_981_039_346_656_037
        for byte in prompt.utf8 { hash = (hash ^ UInt64(byte)) &* 1_099_511_628_211 }
        for shift in stride(from: 0, to: 64, by: 8) {
            hash = (hash ^ (UInt64(bitPattern: seed) >> UInt64(shift) & 0xFF)) &* 1_099_511_628_211
        }
        state = hash
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// 0..<1.
    mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// -1..<1.
    mutating func symmetric() -> Double { uniform() * 2 - 1 }
}
