import Crypto
import CryptoExtras

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Passwords as they are stored: scrypt (RFC 7914) with a salt.
struct PasswordHash: Sendable, Hashable {
    /// What hashing costs. It is stored with each hash, so that it can be raised.
    struct Cost: Sendable, Hashable {
        var rounds: Int
        var blockSize: Int
        var parallelism: Int

        /// 16 MB, and about a tenth of a second.
        static let standard = Cost(rounds: 1 << 14, blockSize: 8, parallelism: 5)

        var text: String { "\(rounds):\(blockSize):\(parallelism)" }

        init(rounds: Int, blockSize: Int, parallelism: Int) {
            (self.rounds, self.blockSize, self.parallelism) = (rounds, blockSize, parallelism)
        }

        /// - Returns: nil for what is no cost, or one that this program does not pay.
        init?(text: String) {
            let numbers = text.split(separator: ":").compactMap { Int($0) }
            guard numbers.count == 3, (2...1 << 17).contains(numbers[0]), (1...16).contains(numbers[1]),
                (1...16).contains(numbers[2])
            else { return nil }
            self.init(rounds: numbers[0], blockSize: numbers[1], parallelism: numbers[2])
        }
    }

    var cost: Cost
    var salt: [UInt8]
    var hash: [UInt8]

    /// What nobody's password has: hashing against it takes as long as any other.
    static func nobody(_ cost: Cost) -> PasswordHash {
        PasswordHash(cost: cost, salt: Array(repeating: 0, count: 16), hash: Array(repeating: 0, count: 32))
    }

    init(cost: Cost, salt: [UInt8], hash: [UInt8]) { (self.cost, self.salt, self.hash) = (cost, salt, hash) }

    init(of password: String, cost: Cost) throws {
        self.cost = cost
        salt = RandomText.bytes(16)
        hash = try Self.derive(password, salt, cost)
    }

    /// Takes a while: not for the cooperative threads.
    func fits(_ password: String) -> Bool {
        guard let other = try? Self.derive(password, salt, cost), other.count == hash.count else { return false }
        // As long for the first byte that differs as for the last.
        return zip(other, hash).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }

    private static func derive(_ password: String, _ salt: [UInt8], _ cost: Cost) throws -> [UInt8] {
        let key = try KDF.Scrypt.deriveKey(
            from: Array(password.utf8), salt: salt, outputByteCount: 32, rounds: cost.rounds, blockSize: cost.blockSize,
            parallelism: cost.parallelism, maxMemory: 256 << 20)
        return key.withUnsafeBytes { Array($0) }
    }
}

/// Texts that nobody can guess: sessions and tokens.
enum RandomText {
    static func bytes(_ count: Int) -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }

    /// 256 bits, as letters and digits of RFC 4648 §5.
    static func make() -> String {
        Data(bytes(32)).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_")
            .replacing("=", with: "")
    }

    /// What is stored of it.
    static func digest(_ text: String) -> [UInt8] { Array(SHA256.hash(data: Array(text.utf8))) }
}
