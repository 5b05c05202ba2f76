import Foundation
import Hoist
import HoistRedis
import HoistTesting
import RESP
import TestServers
import Testing

/// An answer gets lost while its connection lives, so that each command would have the answer of the one before.
@Suite("Answers out of step", .timeLimit(.minutes(1)))
struct OutOfStepTests {
    @Test("an answer that cannot be that of its command ends the connection, and the next command has its own answer")
    func startsOver() async throws {
        let server = try RedisServer.shared.get()
        let proxy = try TroubleProxy(to: server.port)
        let prefix = "step\(UUID().uuidString.prefix(8)):"
        let backend = try RedisBackend(
            RESPConfiguration(url: "redis://127.0.0.1:\(proxy.port)/0"),
            configuration: .init(keyPrefix: prefix, resultKeyPrefix: prefix))
        let isStored = try await backend.compareAndSet("key", expected: nil, to: Array("value".utf8), expiresAfter: nil)
        #expect(isStored)
        _ = try await backend.dueSchedules(in: [""], limit: 1)
        // The command goes unheard, and the next one is answered on the same connection.
        proxy.isSwallowing = true
        let lost = Task { try await backend.dueSchedules(in: [""], limit: 1) }
        #expect(try await eventually { proxy.swallowedBytes > 0 })
        proxy.isSwallowing = false
        let other = Task { try await backend.send(Array("frame".utf8), exchange: "exchange", key: "") }
        let error = await #expect(throws: BackendError.self) { try await lost.value }
        #expect(error?.code == .incompatible)
        _ = try? await other.value
        let begin = ContinuousClock.now
        #expect(try await backend.value(of: "key") == Array("value".utf8))
        #expect(try await backend.dueSchedules(in: [""], limit: 1).due.isEmpty)
        #expect(ContinuousClock.now - begin < .seconds(3), "nothing waits for an answer that has been given away")
    }
}
