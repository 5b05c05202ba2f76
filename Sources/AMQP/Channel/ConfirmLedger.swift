import DequeModule

/// What a server said of a published message.
public enum AMQPConfirm: Sendable, Hashable {
    /// The server has the message, and in a durable queue it has stored it.
    case confirmed
    /// The server has no queue for a message that was published as mandatory: it has dropped the message.
    case returned(code: Int, reason: String)
    /// The server could not take the message (`basic.nack`).
    case refused
}

/// The messages of one channel that wait for their confirm, by sequence number (RabbitMQ, "Publisher Confirms"). Pure.
struct ConfirmLedger<Publication> {
    /// What a returned message is recognised by. A server returns messages in the order in which they were published.
    struct Route: Hashable {
        var exchange: String
        var key: String
        var properties: AMQPProperties
    }

    private struct Entry {
        var publication: Publication
        /// nil for a message that is not mandatory.
        var route: Route?
        var confirm = AMQPConfirm.confirmed
    }

    private var entries = Deque<Entry?>()
    /// The number of the first entry.
    private var base: UInt64 = 1

    var isEmpty: Bool { entries.isEmpty }

    mutating func published(_ publication: Publication, mandatory route: Route?) {
        entries.append(Entry(publication: publication, route: route))
    }

    /// A message came back. Its confirm is still to come.
    mutating func returned(_ route: Route, code: Int, reason: String) {
        let place = entries.firstIndex { entry in
            guard let entry, case .confirmed = entry.confirm else { return false }
            return entry.route == route
        }
        guard let place else { return }
        entries[place]?.confirm = .returned(code: code, reason: reason)
    }

    /// - Returns: what became of which messages.
    mutating func settled(
        _ tag: UInt64, multiple: Bool, isTaken: Bool
    ) throws(AMQPViolation) -> [(Publication, AMQPConfirm)] {
        // Zero with `multiple` means all (AMQP 0-9-1, basic.ack).
        let last = tag == 0 && multiple ? base + UInt64(entries.count) - 1 : tag
        guard last < base + UInt64(entries.count) else {
            throw AMQPViolation("the message \(tag) was confirmed, which was never published")
        }
        guard last >= base else { return [] }
        let place = Int(last - base)
        var settled: [(Publication, AMQPConfirm)] = []
        for index in (multiple ? 0 : place)...place {
            guard let entry = entries[index] else { continue }
            entries[index] = nil
            settled.append((entry.publication, isTaken ? entry.confirm : .refused))
        }
        while let first = entries.first, first == nil {
            entries.removeFirst()
            base += 1
        }
        return settled
    }

    /// Nothing more will be confirmed.
    mutating func abandon() -> [Publication] {
        defer { entries.removeAll() }
        base += UInt64(entries.count)
        return entries.compactMap { $0?.publication }
    }
}
