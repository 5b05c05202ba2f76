import Hoist
import RESP

// Writes and reads the places of TurnWire.

extension TurnWire {
    /// Jobs that are simply done: their number, and a column after the other.
    static func append(done steps: [SettlingStep], withResults: Bool, to arguments: inout [RESPArgument]) {
        arguments.append(.integer(Int64(steps.count)))
        for column in Done.allCases {
            switch column {
            case .id: for step in steps { arguments.append(.text(step.id)) }
            case .token: for step in steps { arguments.append(.integer(step.token)) }
            case .seconds:
                for step in steps {
                    let result = withResults ? step.result : nil
                    arguments.append(result.map { $0.isRemoval ? "-" : .integer($0.seconds) } ?? "")
                }
            case .result:
                for step in steps {
                    let result = withResults ? step.result : nil
                    arguments.append(result.map { .bytes($0.value) } ?? "")
                }
            }
        }
    }

    /// Any other settlement, with what follows from it.
    static func append(_ step: SettlingStep, withResult: Bool, to arguments: inout [RESPArgument]) {
        let result = withResult ? step.result : nil
        for place in Settlement.allCases {
            switch place {
            case .id: arguments.append(.text(step.id))
            case .token: arguments.append(.integer(step.token))
            case .operation: arguments.append(letter(of: step.operation))
            case .resultKey: arguments.append(result.map { .text($0.key) } ?? "")
            case .seconds:
                arguments.append(result.map { $0.isRemoval ? "-" : .integer($0.seconds) } ?? "0")
            case .result: arguments.append(result.map { .bytes($0.value) } ?? "")
            case .queue: arguments.append(.text(step.queue))
            }
        }
        switch step.operation {
        case .done: break
        case .ended(let kind, let keepUntil, let record, _):
            for place in Ending.allCases {
                switch place {
                case .kind: arguments.append(.text(kind))
                case .keepUntil: arguments.append(.integer(keepUntil))
                case .record: arguments.append(.bytes(record.encoded))
                }
            }
        case .back(let list, let due, let inFront, let record, let envelope):
            for place in Return.allCases {
                switch place {
                case .list: arguments.append(.text(list))
                case .due: arguments.append(due.map { .integer($0) } ?? "")
                case .side: arguments.append(side(of: step, inFront: inFront))
                case .record: arguments.append(.bytes(record.encoded))
                case .envelope: arguments.append(.bytes(envelope ?? []))
                }
            }
        }
        arguments.append(.integer(Int64(step.followUps.count)))
        for followUp in step.followUps { append(followUp, withResult: withResult, to: &arguments) }
    }

    private static func letter(of operation: SettlingStep.Operation) -> RESPArgument {
        switch operation {
        case .done: "S"
        case .ended(_, _, _, let yields): yields ? "H" : "E"
        case .back: "B"
        }
    }

    /// On which side of its list a job goes back, and whether it has begun.
    private static func side(of step: SettlingStep, inFront: Bool) -> RESPArgument {
        inFront ? (step.countsAsStart ? "R" : "F") : (step.isBegun ? "L" : "A")
    }

    private static func append(
        _ followUp: SettlingStep.FollowUp, withResult: Bool, to arguments: inout [RESPArgument]
    ) {
        switch followUp {
        case .message(let message, let list, let record):
            arguments.append("m")
            for place in FollowingMessage.allCases {
                switch place {
                case .id: arguments.append(.text(message.id))
                case .list: arguments.append(.text(list))
                case .queue: arguments.append(.text(message.queue))
                case .record: arguments.append(.bytes(record.encoded))
                case .envelope: arguments.append(.bytes(message.encodedEnvelope()))
                case .due: arguments.append(message.headers.eta.map { .integer($0.microsecondsSinceEpoch) } ?? "")
                }
            }
        case .result(let result):
            arguments.append("r")
            for place in FollowingResult.allCases {
                switch place {
                case .key: arguments.append(.text(withResult ? result.key : ""))
                case .seconds: arguments.append(.integer(result.seconds))
                case .result: arguments.append(.bytes(result.value))
                }
            }
        }
    }

    static func append(
        _ step: RedisBackend.ProgressStep, withResult: Bool, to arguments: inout [RESPArgument]
    ) {
        let result = withResult ? step.result : nil
        for place in Progress.allCases {
            switch place {
            case .id: arguments.append(.text(step.report.jobID))
            case .token: arguments.append(.integer(step.report.token))
            case .resultKey: arguments.append(.text(result?.key ?? ""))
            case .seconds: arguments.append(.integer(result?.seconds ?? 0))
            case .result: arguments.append(.bytes(result?.value ?? []))
            }
        }
    }
}

/// The values of a reply, or of a part of it, by place.
private struct Places<Place: WirePlace> {
    private let values: ArraySlice<RESPValue>

    /// Nil when there are fewer or more values than places.
    init?(_ values: ArraySlice<RESPValue>) {
        guard values.count == Place.allCases.count else { return nil }
        self.values = values
    }

    subscript(place: Place) -> RESPValue { values[values.startIndex + place.rawValue] }

    func texts(_ place: Place) -> [String] { self[place].elements?.compactMap(\.text) ?? [] }
}

extension RedisBackend.Answer {
    /// - Parameter lists: all lists of the claims, in their order.
    init?(_ reply: RESPValue, lists: [(queue: String, list: String)]) {
        guard let places = reply.elements.flatMap({ Places<TurnWire.Reply>($0[...]) }),
            let token = places[.firstToken].integer, let time = places[.now].integer
        else { return nil }
        now = time
        problem = places[.problem].text ?? ""
        standingVersion = places[.stands].text ?? ""
        isAlive = places[.isAlive].integer == 1
        codes = places[.codes].elements?.compactMap(\.integer) ?? []
        refused = places.texts(.refused)
        cancellations = places.texts(.toCancel)
        dead = places.texts(.dead)
        copies = places.texts(.copies)
        nextDue = places[.nextDue].integer.map(JobDate.init(microsecondsSinceEpoch:))
        hasMore = places[.hasMore].integer == 1
        hasStrangers = places[.hasStrangers].integer == 1
        emptyLists =
            places[.empty].elements?.compactMap { number in
                number.integer.flatMap { lists.indices.contains(Int(clamping: $0 - 1)) ? lists[Int($0 - 1)] : nil }
            } ?? []
        let flat = places[.deliveries].elements ?? []
        let width = TurnWire.Delivery.allCases.count
        deliveries = stride(from: 0, to: flat.count, by: width).compactMap { index in
            .init(flat[index..<min(index + width, flat.count)], token: token + Int64(index / width), lists: lists)
        }
    }
}

extension RedisBackend.RawDelivery {
    init?(_ values: ArraySlice<RESPValue>, token: Int64, lists: [(queue: String, list: String)]) {
        guard let places = Places<TurnWire.Delivery>(values), let number = places[.list].integer,
            lists.indices.contains(Int(clamping: number - 1)),
            let id = places[.id].text, let name = places[.name].text, let word = places[.word].bytes,
            let letter = word.last, let record = places[.record].bytes, let envelope = places[.envelope].bytes
        else { return nil }
        (queue, list) = lists[Int(number - 1)]
        (self.id, self.name, self.token, self.record, self.envelope) = (id, name, token, record, envelope)
        let digits = word.dropLast().reduce(0) { min($0 * 10 + Int($1 &- 48), 1_000_000_000) }
        retries = max(0, digits)
        kind =
            switch letter {
            case UInt8(ascii: "t"): .timed
            case UInt8(ascii: "u"): .unreadable
            case UInt8(ascii: "k"): .unplaced
            case UInt8(ascii: "d"): .dropped
            case UInt8(ascii: "r"): .revoked
            default: .ready
            }
    }
}
