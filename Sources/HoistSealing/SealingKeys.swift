import Crypto
public import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Signs or encrypts arguments and outputs with secret keys, one to seal with and any number of older ones to open
/// with.
///
/// ```swift
/// let keys = try SealingKeys(.encrypted, current: SealingKey(id: "2027-01", base64: secret), older: [lastYears])
/// let client = JobClient(backend, configuration: .init(sealing: keys), logger: logger)
/// let worker = Worker(backend, configuration: .init(client: .init(sealing: keys)), logger: logger) { … }
/// ```
/// To rotate: give the new key to every program as an older one, then make it the current one everywhere, and take the
/// old one away when no job that it sealed can be left. A program without the key refuses the job, which becomes a dead
/// letter that names the key; with the key it may be requeued.
///
/// Sealed jobs are for Hoist alone: Celery's workers refuse the content type.
///
/// The form: a line `hoist1 <algorithm> <key id>`, then for HS256 the 32 bytes of HMAC-SHA-256 (RFC 2104) over that
/// line and the purpose, each behind its length, and the payload, followed by the payload; for A256GCM the nonce of 12
/// bytes, what AES-256-GCM (NIST SP 800-38D) made of the payload with line and purpose as additional data, and the tag
/// of 16 bytes. Keys are derived from the secret with HKDF-SHA-256 (RFC 5869), one for each algorithm.
public struct SealingKeys: Sealing {
    public struct Mode: Sendable, Hashable {
        let algorithm: Algorithm

        /// Anybody may read, nobody without the key may write: HMAC-SHA-256.
        public static let signed = Mode(algorithm: .signature)
        /// Nobody without the key may read or write: AES-256-GCM. One key is good for about two thousand million jobs
        /// with outputs, for nonces are random.
        public static let encrypted = Mode(algorithm: .encryption)
    }

    enum Algorithm: String, Sendable { case signature = "HS256", encryption = "A256GCM" }

    private let mode: Mode
    private let current: SealingKey
    private let keys: [String: SealingKey]
    public let acceptsUnsealed: Bool
    public var hidesPayloads: Bool { mode == .encrypted }

    /// - Parameters:
    ///   - mode: how to seal. What was sealed in the other way is opened all the same.
    ///   - current: the key to seal with.
    ///   - older: further keys to open with.
    ///   - acceptsUnsealed: whether jobs and outputs that are not sealed are accepted all the same, as while producers
    ///     are being changed over, or where Python takes part.
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
            // Compares in a time that says nothing of where they differ.
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

/// A secret with a name that travels.
public struct SealingKey: Sendable {
    public let id: String
    fileprivate let signature: SymmetricKey
    fileprivate let encryption: SymmetricKey

    /// - Parameters:
    ///   - id: up to 64 letters, digits, dots, hyphens and underscores. Everybody sees it.
    ///   - secret: at least 32 bytes, from a good source of random bytes: `openssl rand -base64 32`.
    /// - Throws: ``SealingKeyError``, without the secret.
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
    /// - Throws: ``SealingKeyError``, without the secret.
    public init(id: String, base64: String) throws {
        let text = base64.filter { !$0.isWhitespace }
        guard let secret = Data(base64Encoded: text) else {
            throw SealingKeyError(message: "the secret of the key \(id) is not base64")
        }
        try self.init(id: id, secret: Array(secret))
    }

    /// Parts one behind the other so that they cannot be told apart in two ways.
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

/// Keys that cannot be used. Nothing of a secret is in it.
public struct SealingKeyError: Error, Sendable, CustomStringConvertible {
    public var message: String
    public var description: String { message }
}
