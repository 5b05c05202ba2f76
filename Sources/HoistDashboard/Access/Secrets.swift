import Crypto
import CryptoExtras

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Passwords as they are stored: scrypt (RFC 7914) with a salt.
struct PasswordHash: Sendable, Hashable {
    var salt: [UInt8]
    var hash: [UInt8]

    /// 16 MB and a twentieth of a second.
    private static let rounds = 1 << 14
    /// What nobody's password has: hashing against it takes as long as any other.
    static let nobody = PasswordHash(salt: Array(repeating: 0, count: 16), hash: Array(repeating: 0, count: 32))

    init(salt: [UInt8], hash: [UInt8]) { (self.salt, self.hash) = (salt, hash) }

    init(of password: String) throws {
        salt = RandomText.bytes(16)
        hash = try Self.derive(password, salt)
    }

    /// Takes a while: not for the cooperative threads.
    func fits(_ password: String) -> Bool {
        guard let other = try? Self.derive(password, salt), other.count == hash.count else { return false }
        // As long for the first byte that differs as for the last.
        return zip(other, hash).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }

    private static func derive(_ password: String, _ salt: [UInt8]) throws -> [UInt8] {
        let key = try KDF.Scrypt.deriveKey(
            from: Array(password.utf8), salt: salt, outputByteCount: 32, rounds: rounds, blockSize: 8, parallelism: 1)
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
