import Logging

/// Puts what is broadcast on a channel into the queue that is one worker's alone, where it is kept like any other job.
struct BroadcastListener: Sendable {
    let channel: String
    let backend: Backend
    let worker: String
    /// The names of jobs that the worker performs.
    let jobNames: Set<String>
    let sealing: (any Sealing)?
    let patience: Patience

    private static let listening = "listen to broadcasts"

    func run() async {
        guard let routing = backend.broadcasts else { return }
        while !Task.isCancelled {
            do {
                let messages = try await routing.broadcasts(on: channel)
                patience.succeeded(Self.listening)
                for await message in messages {
                    guard jobNames.contains(message.jobName), let copy = ownCopy(of: message) else { continue }
                    // The sender of a broadcast does not wait, so this may take as long as the backend needs.
                    await patience.attempt("keep a broadcast") { _ = try await backend.publish([copy]) }
                }
            } catch {
                await patience.backOff(after: error, from: Self.listening)
            }
        }
    }

    private func ownCopy(of message: Message) -> Message? {
        // A seal holds a message to its id, and the copy has another.
        guard var copy = message.isSealed ? try? message.opened(with: sealing, onChannel: channel) : message else {
            patience.logger.warning(
                "a broadcast cannot be opened",
                metadata: [
                    "job.id": "\(TerminalText.line(message.id))", "job.name": "\(TerminalText.line(message.jobName))",
                ])
            return nil
        }
        copy.headers.parentID = copy.headers.parentID ?? message.id
        copy.headers.id = message.id + "." + worker
        copy.properties.correlationID = copy.headers.id
        copy.properties.deliveryTag = JobIdentifier.make()
        copy.properties.exchange = ""
        copy.queue = SpecialQueue.direct(to: worker)
        if message.isSealed, let sealing { guard (try? copy.seal(with: sealing)) != nil else { return nil } }
        return copy
    }
}
