extension Sequence<UInt8> {
    /// FNV-1a, 64 bits: the same in every program and every run.
    var stableHash: UInt64 { reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 } }
}
