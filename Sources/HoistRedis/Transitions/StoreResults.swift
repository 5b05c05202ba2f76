public import Hoist
import RESP

extension RedisBackend {
    /// Writes the states of jobs that this backend does not hold. A success is never written over.
    public func store(_ results: [ResultWrite]) async throws {
        let now = now
        for write in results {
            let result = meta(write, now: now)
            if resultClient != nil {
                try await storeApart(result, isFinal: false)
            } else {
                _ = try await run(
                    RedisScripts.storeResult,
                    [
                        .text(result.key), .integer(result.seconds), .bytes(result.value), "",
                        brokerDatabase, .text(resultDatabase), result.isRemoval ? "1" : "",
                    ], doing: "store a result")
            }
            follower.ring(write.record.id)
        }
    }
}
