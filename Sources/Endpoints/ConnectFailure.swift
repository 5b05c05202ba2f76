import NIOCore
import NIOPosix

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Why a server cannot be reached, in words for a person.
package enum ConnectFailure {
    /// - Parameter error: what SwiftNIO says of a connection that could not be opened.
    package static func reason(_ error: any Error) -> String {
        switch error {
        case let error as NIOConnectionError:
            let reasons = error.connectionErrors.map { reason($0.error) }
            // A name with several addresses, such as those of IPv4 and IPv6, mostly has one reason.
            var different: [String] = []
            for reason in reasons where !different.contains(reason) { different.append(reason) }
            if different.isEmpty { return "its name cannot be resolved" }
            return different.joined(separator: "; ")
        case let error as IOError: return String(cString: strerror(error.errnoCode)).lowercased()
        case ChannelError.connectTimeout: return "no answer in time"
        default: return "\(error)"
        }
    }
}
