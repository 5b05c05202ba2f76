public import Hummingbird
import Logging

extension Response {
    /// Adds work that begins once the response has been written: with ``BackgroundTasks`` it is FastAPI's
    /// `BackgroundTasks`.
    ///
    /// ```swift
    /// return Response(status: .accepted).afterwards { try await background.run("notify") { … } }
    /// ```
    /// The connection reads its next request when `body` has returned, so hand anything slow on. A client that went
    /// away before the response does not keep `body` from running, but one that went away before its head could be
    /// written may.
    public func afterwards(_ body: @escaping @Sendable () async throws -> Void) -> Response {
        var response = self
        let original = response.body
        response.body = ResponseBody(contentLength: original.contentLength) { writer in
            let result: Result<Void, any Error>
            do { result = .success(try await original.write(writer)) } catch { result = .failure(error) }
            try await body()
            try result.get()
        }
        return response
    }
}
