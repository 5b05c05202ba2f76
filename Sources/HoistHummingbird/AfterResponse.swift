public import Hummingbird
import Logging

extension Response {
    /// Adds work that begins once the response has been written. With ``BackgroundTasks`` it does what FastAPI's
    /// `BackgroundTasks` does.
    ///
    /// ```swift
    /// return Response(status: .accepted).afterwards { try await background.run("notify") { … } }
    /// ```
    /// The connection reads its next request only after `body` has returned, so hand slow work on. `body` also runs
    /// when the client has disconnected; it may not run when the client disconnected before the head of the response
    /// could be written.
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
