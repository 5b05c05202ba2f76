/// Broadcasts of jobs for a backend that sends frames to all listeners.
package struct FrameBroadcasts: JobBroadcasting {
    private let fanout: any Fanout

    package init(_ fanout: any Fanout) { self.fanout = fanout }

    /// Apart from the exchanges of events and control, which may have the same names.
    private func exchange(_ channel: String) -> String { "broadcast:" + channel }

    package func broadcast(_ message: Message, on channel: String) async throws -> Int {
        try await fanout.send(message.encodedEnvelope(), exchange: exchange(channel), key: "") ?? 0
    }

    package func broadcasts(on channel: String) async throws -> AsyncStream<Message> {
        let frames = try await fanout.frames(exchange: exchange(channel), pattern: "#")
        return .fed(bufferingPolicy: .bufferingNewest(10_000)) { messages in
            for await frame in frames {
                // There is no job that could fail for a broadcast that cannot be read.
                if let message = try? Message(envelope: frame.bytes) { messages.yield(message) }
            }
        }
    }
}
