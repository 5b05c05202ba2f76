/// Topics for a backend that keeps values which programs agree on: one value for each exchange holds its bindings.
package struct StoredTopics: TopicRouting {
    private let values: any Coordination

    package init(_ values: any Coordination) { self.values = values }

    private struct Binding: Codable, Hashable {
        var pattern: String
        var queue: String
    }

    private func key(_ exchange: String) -> String { "topics:" + exchange }

    private func bindings(_ bytes: [UInt8]?, of exchange: String) throws(BackendError) -> [Binding] {
        guard let bytes else { return [] }
        do {
            return try JSONText.decode([Binding].self, from: bytes)
        } catch {
            throw BackendError(.corrupt, "the bindings of the exchange \(exchange) cannot be read")
        }
    }

    /// Changes the bindings of an exchange, again where somebody else was faster.
    private func change(_ exchange: String, _ body: (inout [Binding]) -> Void) async throws {
        for _ in 0..<100 {
            let stored = try await values.value(of: key(exchange))
            let before = try bindings(stored, of: exchange)
            var after = before
            body(&after)
            if after == before { return }
            let value = after.isEmpty ? nil : try JSONText.encode(after)
            if try await values.compareAndSet(key(exchange), expected: stored, to: value, expiresAfter: nil) { return }
        }
        throw BackendError(.busy, "the bindings of the exchange \(exchange) change too fast; try again")
    }

    package func bind(queue: String, to topics: TopicBinding) async throws {
        let binding = Binding(pattern: topics.pattern, queue: queue)
        try await change(topics.exchange) { if !$0.contains(binding) { $0.append(binding) } }
    }

    package func unbind(queue: String, from topics: TopicBinding) async throws {
        let binding = Binding(pattern: topics.pattern, queue: queue)
        try await change(topics.exchange) { $0.removeAll { $0 == binding } }
    }

    package func queues(of exchange: String, topic: String) async throws -> [String] {
        let known = try bindings(try await values.value(of: key(exchange)), of: exchange)
        let found = known.filter { TopicBinding.topic($0.pattern, exchange: exchange).matches(topic) }
        return Set(found.map(\.queue)).sorted()
    }
}
