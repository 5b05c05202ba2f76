import Hoist

/// The record of a job that waits, or that ended without a result: the value of `hoist:job:<id>`.
///
/// One letter, then JSON. The letter tells the scripts whether they must decode the JSON: `p` no; `x` yes, because the
/// job holds a unique key; `c` the job was cancelled where it could not be taken out of its list.
struct StoredJob: Sendable, Equatable {
    var queue: String
    var name: String
    var state: JobState
    var urgency: Int
    var enqueuedAt: Int64?
    var expires: Int64?
    var unique: UniqueKey?
    var isAtMostOnce = false
    var lostWorkers = 0
    var history: [AttemptRecord] = []
    var failure: JobFailure?
    var worker: String?
    var startedAt: Int64?
    var endedAt: Int64?
    /// When it last changed.
    var changedAt: Int64
    /// Set when the job was cancelled and its element may still be in its list.
    var isCancelledInPlace = false

    init(_ message: Message, state: JobState, now: Int64) {
        queue = message.queue
        name = message.jobName
        self.state = state
        urgency = RedisPriority.urgency(wire: message.properties.priority)
        enqueuedAt = message.headers.hoist.enqueuedAt?.microsecondsSinceEpoch
        expires = message.headers.expires?.microsecondsSinceEpoch
        unique = message.headers.hoist.unique
        isAtMostOnce = message.headers.hoist.isAtMostOnce
        changedAt = now
    }

    init(queue: String, name: String, state: JobState, now: Int64) {
        self.queue = queue
        self.name = name
        self.state = state
        urgency = RedisPriority.urgency(wire: nil)
        changedAt = now
    }

    init?(_ bytes: [UInt8]) {
        guard let letter = bytes.first, let value = try? JSONParser.parse(Array(bytes.dropFirst())),
            let queue = value["q"]?.stringValue, let name = value["n"]?.stringValue
        else { return nil }
        self.queue = queue
        self.name = name
        state = value["s"]?.stringValue.flatMap(JobState.init(rawValue:)) ?? .waiting
        urgency = Int(value["p"]?.integerValue ?? 0).clamped(to: 0...9)
        enqueuedAt = value["at"]?.integerValue
        expires = value["x"]?.integerValue
        if let held = value["u"]?.arrayValue, held.count == 3, let key = held[0].stringValue {
            unique = UniqueKey(
                key, scope: UniqueKey.Scope(named: held[1].stringValue, seconds: held[2].doubleValue ?? 0))
        }
        isAtMostOnce = value["once"]?.boolValue ?? false
        lostWorkers = Self.count(value["lost"])
        history = value["h"].flatMap { try? WireDecoder.decode([AttemptRecord].self, from: $0) } ?? []
        failure = value["f"].flatMap { try? WireDecoder.decode(JobFailure.self, from: $0) }
        worker = value["w"]?.stringValue
        startedAt = value["b"]?.integerValue
        endedAt = value["e"]?.integerValue
        changedAt = value["t"]?.integerValue ?? 0
        isCancelledInPlace = letter == UInt8(ascii: "c")
    }

    /// A number of attempts or deaths from another program, clamped so that adding to it does not overflow.
    static func count(_ value: WireValue?) -> Int {
        let number = value?.integerValue ?? value?.doubleValue.map { Int64(bounded: $0) } ?? 0
        return Int(number.clamped(to: 0...1_000_000_000))
    }

    var encoded: [UInt8] {
        var json = JSONWriter(reserving: 160)
        json.token(isCancelledInPlace ? "c" : unique != nil ? "x" : "p")
        json.token("{\"q\":")
        json.string(queue)
        json.token(",\"n\":")
        json.string(name)
        json.token(",\"s\":")
        json.string(state.rawValue)
        json.token(",\"p\":")
        json.integer(Int64(urgency))
        json.token(",\"t\":")
        json.integer(changedAt)
        func integer(_ key: StaticString, _ value: Int64?) {
            guard let value else { return }
            json.token(key)
            json.integer(value)
        }
        func value(_ key: StaticString, _ value: (some Encodable)?) {
            guard let value, let encoded = try? WireEncoder.encode(value) else { return }
            json.token(key)
            json.write(encoded)
        }
        integer(",\"at\":", enqueuedAt)
        integer(",\"x\":", expires)
        integer(",\"b\":", startedAt)
        integer(",\"e\":", endedAt)
        if lostWorkers > 0 { integer(",\"lost\":", Int64(lostWorkers)) }
        if isAtMostOnce { json.token(",\"once\":true") }
        if let worker {
            json.token(",\"w\":")
            json.string(worker)
        }
        if let unique {
            json.token(",\"u\":")
            json.write([
                .string(unique.key), .string(unique.scope.kind.rawValue),
                .double(Duration(boundedSeconds: unique.scope.seconds).inSeconds),
            ])
        }
        if !history.isEmpty { value(",\"h\":", history) }
        value(",\"f\":", failure)
        json.token("}")
        return json.bytes
    }

    mutating func append(_ attempt: AttemptRecord) {
        history.append(attempt)
        // A job that is snoozed again and again must not grow without limit.
        history.removeFirst(max(0, history.count - 100))
    }
}

extension UniqueKey.Scope {
    fileprivate init(named name: String?, seconds: Double) {
        switch name {
        case "waiting": self = .untilStarted
        case "remembered": self = .remembered(for: Duration(boundedSeconds: seconds))
        case "window": self = .window(Duration(boundedSeconds: seconds))
        default: self = .untilFinished
        }
    }
}

/// A delivery as the server keeps it while a worker has it.
struct HeldJob: Sendable {
    var token: Int64
    var began: Int64
    var list: String
    var record: StoredJob?
    var envelope: [UInt8]

    /// - Parameter information: token, time of claim, list and record, a line each.
    init?(_ information: [UInt8], envelope: [UInt8]) {
        let lines = information.split(separator: UInt8(ascii: "\n"), maxSplits: 3, omittingEmptySubsequences: false)
        guard lines.count == 4, let token = Int64(String(decoding: lines[0], as: UTF8.self)) else { return nil }
        self.init(
            token: token, began: Int64(String(decoding: lines[1], as: UTF8.self)) ?? 0,
            list: String(decoding: lines[2], as: UTF8.self),
            record: StoredJob(Array(lines[3])), envelope: envelope)
    }

    init(token: Int64, began: Int64, list: String, record: StoredJob?, envelope: [UInt8]) {
        self.token = token
        self.began = began
        self.list = list
        self.record = record
        self.envelope = envelope
    }
}
