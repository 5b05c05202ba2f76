import Foundation

/// An authority of a test's own, and certificates that it has signed. The files are removed with the object.
public final class TestCertificates: Sendable {
    private let folder: URL
    /// The certificate of the authority.
    public var authority: String { file("ca.pem") }

    /// - Throws: `TestServerError` when openssl fails, Foundation's error when it cannot be started.
    public init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("hoist-tls-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Hoist's tests", "-keyout",
            file("ca.key"), "-out", authority)
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    private func file(_ name: String) -> String { folder.appendingPathComponent(name).path }

    /// A certificate for this name, which is also one for this machine's loopback.
    /// - Returns: the files of the certificate and of its key.
    /// - Throws: `TestServerError` when openssl fails.
    public func make(_ name: String) throws -> (certificate: String, key: String) {
        let (key, request, certificate) = (file(name + ".key"), file(name + ".csr"), file(name + ".pem"))
        try openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=\(name)", "-keyout", key, "-out", request)
        let names = file(name + ".ext")
        try "subjectAltName=DNS:localhost,DNS:\(name),IP:127.0.0.1\n".write(
            toFile: names, atomically: true, encoding: .utf8)
        try openssl(
            "x509", "-req", "-in", request, "-CA", authority, "-CAkey", file("ca.key"), "-CAcreateserial", "-days", "2",
            "-extfile", names, "-out", certificate)
        return (certificate, key)
    }

    private func openssl(_ arguments: String...) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["openssl"] + arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw TestServerError(description: "openssl \(arguments.joined(separator: " ")) failed")
        }
    }
}
