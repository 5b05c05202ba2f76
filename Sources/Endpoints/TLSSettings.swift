import NIOCore
package import NIOSSL

/// The settings of TLS. Certificates and host names are verified by default.
public struct TLSSettings: Sendable, Hashable {
    /// Checks that the server's certificate comes from an authority that is trusted.
    public var verifiesCertificate = true
    /// Checks that the certificate belongs to this host.
    public var verifiesHostname = true
    /// A file of certificates to trust in place of the system's, PEM.
    public var trustedCertificatesFile: String?
    /// PEM files of this client's own certificate and key, for servers that ask for a certificate. Without
    /// `keyFile` the key is read from `certificateFile`.
    public var certificateFile: String?
    public var keyFile: String?

    public init() {}

    package func nioConfiguration() throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.certificateVerification =
            !verifiesCertificate ? .none : verifiesHostname ? .fullVerification : .noHostnameVerification
        if let trustedCertificatesFile { configuration.trustRoots = .file(trustedCertificatesFile) }
        if let certificateFile {
            configuration.certificateChain = try NIOSSLCertificate.fromPEMFile(certificateFile).map {
                .certificate($0)
            }
            configuration.privateKey = .privateKey(
                try NIOSSLPrivateKey(file: keyFile ?? certificateFile, format: .pem))
        }
        return configuration
    }

    /// The handler of a connection to `host`.
    package static func handler(_ context: NIOSSLContext, host: String) throws -> NIOSSLClientHandler {
        // An IP address is verified as an address: it is not a server name to ask for.
        let isAddress = (try? SocketAddress(ipAddress: host, port: 0)) != nil
        return try NIOSSLClientHandler(context: context, serverHostname: isAddress ? nil : host)
    }

    /// Whether an error of a connection is about certificates or keys.
    package static func isFailure(_ error: any Error) -> Bool {
        let what = String(describing: error)
        // A peer that closes the connection in the middle of a handshake is an outage.
        return (what.contains("SSL") || what.contains("certificate")) && !what.contains("eofDuringHandshake")
            && !what.contains("uncleanShutdown")
    }
}

extension TLSSettings {
    /// Reads the options of a URL that Python's clients read: `ssl_cert_reqs`, `ssl_check_hostname`, `ssl_ca_certs`,
    /// `ssl_certfile`, `ssl_keyfile`.
    /// - Throws: ``MalformedURL`` for a word that is none of theirs.
    package init(_ options: [String: String]) throws(MalformedURL) {
        self.init()
        switch options["ssl_cert_reqs"]?.lowercased().replacing("cert_", with: "") {
        // For a client Python's "optional" means the same as "required".
        case nil, "required", "optional": break
        case "none": (verifiesCertificate, verifiesHostname) = (false, false)
        default: throw MalformedURL("ssl_cert_reqs must be required, optional or none")
        }
        if let check = options["ssl_check_hostname"],
            ["false", "f", "0", "no", "n", "off"].contains(check.lowercased())
        {
            verifiesHostname = false
        }
        trustedCertificatesFile = options["ssl_ca_certs"]
        certificateFile = options["ssl_certfile"]
        keyFile = options["ssl_keyfile"]
    }
}
