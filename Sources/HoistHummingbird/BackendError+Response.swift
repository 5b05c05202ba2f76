public import HTTPTypes
public import Hoist
public import Hummingbird
import Logging
import Synchronization

/// The answer of a server whose route throws a ``BackendError``: 503 with `Retry-After` while the backend is away, else
/// 500. The client is told nothing of the backend; the log is, once a minute.
extension BackendError: HTTPResponseError {
    public var status: HTTPResponse.Status { isTemporary ? .serviceUnavailable : .internalServerError }

    /// Whether the same request may succeed a little later.
    private var isTemporary: Bool { [.unavailable, .timedOut, .busy, .full].contains(code) }

    /// - Throws: what the context's encoder throws for the error as JSON.
    public func response(from request: Request, context: some RequestContext) throws -> Response {
        if !isTemporary || AwayNotice.shared.isDue() {
            context.logger.error(
                isTemporary ? "the backend of the jobs does not answer" : "the backend of the jobs refused a request",
                metadata: ["error": "\(self)"])
        }
        let answer =
            isTemporary
            ? HTTPError(status, headers: [.retryAfter: "5"], message: "jobs cannot be reached at the moment")
            : HTTPError(status, message: "the request could not be carried out")
        return try answer.response(from: request, context: context)
    }
}

/// When the log was told last that a backend is away: every request may find out.
private final class AwayNotice: Sendable {
    static let shared = AwayNotice()

    private let toldAt = Mutex<ContinuousClock.Instant?>(nil)

    func isDue() -> Bool {
        toldAt.withLock { toldAt in
            let now = ContinuousClock.now
            if let last = toldAt, now - last < .seconds(60) { return false }
            toldAt = now
            return true
        }
    }
}
