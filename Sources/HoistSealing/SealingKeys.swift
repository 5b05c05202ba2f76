import Crypto
public import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Signs or encrypts arguments and outputs with secret keys: one key to seal with, and any number of older keys to open
/// with.
///
/// ```swift
/// let keys = try SealingKeys(.encrypted, current: SealingKey(id: "2027-01", base64: secret), older: [lastYears])
/// let client = JobClient(backend, configuration: .init(sealing: keys), logger: logger)
/// let worker = Worker(backend, configuration: .init(client: .init(sealing: keys)), logger: logger) { … }
/// ```
/// To rotate: give the new key to every program as an older key, then make it the current key everywhere, and remove
/// the old key when no job that it sealed can be left. A program without the key refuses the job, and the job becomes a
/// dead letter that names the key. Requeue the job when the program has the key.
///
/// Sealed jobs are for Hoist alone: Celery's workers refuse the content type.
///
/// The form: a line `hoist1 <algorithm> <key id>`, then the sealed payload. For HS256 that is the 32 bytes of
/// HMAC-SHA-256 (RFC 2104), followed by the payload; the HMAC covers that line and the purpose, each preceded by its
/// length, and the payload. For A256GCM it is the nonce of 12 bytes, the payload encrypted with AES-256-GCM (NIST SP
/// 800-38D), and the tag of 16 bytes; the additional data are the line and the purpose, each preceded by its length.
/// Keys are derived from the secret with HKDF-SHA-256 (RFC 5869), one for each algorithm.
public struct SealingKeys: Sealing {
    public struct Mode: Sendable, Hashable {
        let algorithm: Algorithm

        /// Anyone can read; only holders of the key can write: HMAC-SHA-256.
        public static let signed = Mode(algorithm: .signature)
        /// Only holders of the key can read or write: AES-256-GCM. One key is good for about two thousand million jobs
        /// with outputs, because the nonces are random.
        public static let encrypted = Mode(algorithm: .encryption)
    }

    enum Algorithm: String, Sendable { case signature = "HS256", encryption = "A256GCM" }

    private let mode: Mode
    private let current: SealingKey
    private let keys: [String: SealingKey]
    public let acceptsUnsealed: Bool
    public var hidesPayloads: Bool { mode == .encrypted }

    /// - Parameters:
    ///   - mode: how to seal. Payloads that were sealed in the other mode are opened as well.
    ///   - current: the key to seal with.
    ///   - older: further keys to open with.
    ///   - acceptsUnsealed: whether jobs and outputs that are not sealed are accepted too: for the time in which
    ///     producers change over, and for Python clients and workers.
    /// - Throws: ``SealingKeyError`` when two keys have the same id.
    public init(_ mode: Mode, current: SealingKey, older: [SealingKey] = [], acceptsUnsealed: Bool = false) throws {
        self.mode = mode
        self.current = current
        self.acceptsUnsealed = acceptsUnsealed
        var keys: [String: SealingKey] = [:]
        for key in [current] + older {
            guard keys.updateValue(key, forKey: key.id) == nil else {
                throw SealingKeyError(message: "two keys have the id \(key.id)")
            }
        }
        self.keys = keys
    }

    public func seal(_ payload: [UInt8], for purpose: [UInt8]) throws -> [UInt8] {
        let line = Array("hoist1 \(mode.algorithm.rawValue) \(current.id)\n".utf8)
        switch mode.algorithm {
        case .signature: return line + Array(current.code(line, purpose, payload)) + payload
        case .encryption:
            let box = try AES.GCM.seal(
                payload, using: current.encryption, authenticating: SealingKey.framed(line, purpose))
            return line + Array(box.nonce) + Array(box.ciphertext) + Array(box.tag)
        }
    }

    public func open(_ sealed: [UInt8], for purpose: [UInt8]) throws(WireError) -> [UInt8] {
        guard let end = sealed.prefix(128).firstIndex(of: UInt8(ascii: "\n")) else {
            throw WireError("the seal cannot be read")
        }
        let line = Array(sealed[...end])
        let words = String(decoding: sealed[..<end], as: UTF8.self).split(separator: " ")
        guard words.count == 3, words[0] == "hoist1", let algorithm = Algorithm(rawValue: String(words[1])) else {
            throw WireError("the seal is of a kind that this version does not know")
        }
        guard let key = keys[String(words[2])] else {
            throw WireError("it is sealed with the key \(words[2]), which this program does not have")
        }
        let rest = sealed[(end + 1)...]
        switch algorithm {
        case .signature:
            guard rest.count >= 32 else { throw WireError("the signature is cut short") }
            let payload = Array(rest.dropFirst(32))
            // Compares in constant time, which does not reveal where the codes differ.
            guard key.code(line, purpose, payload) == Data(rest.prefix(32)) else {
                throw WireError(
                    "the signature with the key \(key.id) does not hold: the message was changed, or is for another job"
                )
            }
            return payload
        case .encryption:
            do {
                let box = try AES.GCM.SealedBox(combined: Data(rest))
                return Array(
                    try AES.GCM.open(box, using: key.encryption, authenticating: SealingKey.framed(line, purpose)))
            } catch {
                throw WireError(
                    "it cannot be decrypted with the key \(key.id): the message was changed, or is for another job")
            }
        }
    }
}

/// A secret key with an id. The id travels with every sealed payload; the secret does not.
public struct SealingKey: Sendable {
    public let id: String
    fileprivate let signature: SymmetricKey
    fileprivate let encryption: SymmetricKey

    /// - Parameters:
    ///   - id: up to 64 letters, digits, dots, hyphens and underscores. It is not secret.
    ///   - secret: at least 32 bytes, from a good source of random bytes: `openssl rand -base64 32`.
    /// - Throws: ``SealingKeyError`` when the id has another form or the secret is shorter than 32 bytes. The error
    ///   does not contain the secret. A retry with the same key cannot help.
    public init(id: String, secret: [UInt8]) throws {
        let letters = Set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        guard !id.isEmpty, id.count <= 64, id.allSatisfy(letters.contains) else {
            throw SealingKeyError(message: "the id of a key is up to 64 letters, digits, dots, hyphens and underscores")
        }
        guard secret.count >= 32 else {
            throw SealingKeyError(message: "the secret of the key \(id) is shorter than 32 bytes")
        }
        self.id = id
        func derived(_ algorithm: SealingKeys.Algorithm) -> SymmetricKey {
            HKDF<SHA256>.deriveKey(
                inputKeyMaterial: SymmetricKey(data: secret), info: Data("hoist1 \(algorithm.rawValue)".utf8),
                outputByteCount: 32)
        }
        signature = derived(.signature)
        encryption = derived(.encryption)
    }

    /// - Parameters:
    ///   - id: as in ``init(id:secret:)``.
    ///   - base64: the secret, with or without white space around it, as a file or a variable of the environment holds
    ///     it.
    /// - Throws: ``SealingKeyError`` when the secret is not base64, or as ``init(id:secret:)``. The error does not
    ///   contain the secret.
    public init(id: String, base64: String) throws {
        let text = base64.filter { !$0.isWhitespace }
        guard let secret = Data(base64Encoded: text) else {
            throw SealingKeyError(message: "the secret of the key \(id) is not base64")
        }
        try self.init(id: id, secret: Array(secret))
    }

    /// The parts in sequence, each preceded by its length, so that the result can be split in one way only.
    fileprivate static func framed(_ parts: [UInt8]...) -> [UInt8] {
        parts.flatMap { part in withUnsafeBytes(of: UInt64(part.count).bigEndian) { Array($0) } + part }
    }

    fileprivate func code(_ line: [UInt8], _ purpose: [UInt8], _ payload: [UInt8]) -> HashedAuthenticationCode<SHA256> {
        var code = HMAC<SHA256>(key: signature)
        code.update(data: Self.framed(line, purpose))
        code.update(data: payload)
        return code.finalize()
    }
}

/// A key or a set of keys that cannot be used. The error contains nothing of a secret.
public struct SealingKeyError: Error, Sendable, CustomStringConvertible {
    public var message: String
    public var description: String { message }
}
