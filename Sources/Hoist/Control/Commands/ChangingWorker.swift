/// Commands that change how a worker works.
extension BuiltInCommand {
    static let changingWorker: [BuiltInCommand] = [
        .control("enable_events") { _, panel in
            guard let said = panel.recorder.enable() else {
                throw ControlRefusal("enable_events: this worker was started to send no events of its jobs")
            }
            return ["ok": .string(said)]
        },
        .control("disable_events") { _, panel in ["ok": .string(panel.recorder.disable())] },
        .control("heartbeat") { _, panel in
            await panel.engine.sendHeartbeat()
            return .null
        },
        // An election is for Python's workers: it has one of them run an action of theirs.
        .control("election") { _, _ in .null },
        .control("shutdown") { _, panel in
            panel.stop(.drain)
            return nil
        },
        .control("quiet") { _, panel in
            await panel.engine.setQuiet(true)
            return ["ok": "the worker takes no more jobs until it is resumed"]
        },
        .control("resume") { _, panel in
            await panel.engine.setQuiet(false)
            return ["ok": "the worker takes jobs"]
        },
        .control("pool_grow") { call, panel in
            try await resize(call, panel, by: try call.arguments.integer("n", in: 0...10_000, default: 1))
            return ["ok": "pool will grow"]
        },
        .control("pool_shrink") { call, panel in
            try await resize(call, panel, by: -(try call.arguments.integer("n", in: 0...10_000, default: 1)))
            return ["ok": "pool will shrink"]
        },
        .control("autoscale") { call, panel in
            let range = try await panel.engine.autoscale(
                lane: try lane(call), most: try call.arguments.integerIfPresent("max", in: 1...100_000),
                least: try call.arguments.integerIfPresent("min", in: 0...100_000))
            return ["ok": .string("autoscale now max=\(range.upperBound) min=\(range.lowerBound)")]
        },
        .control("pool_restart") { _, panel in
            guard await panel.engine.replaceChildren() else {
                throw ControlRefusal(
                    "pool_restart: this worker has no process lane, and nothing that could be restarted")
            }
            return ["ok": "reload started"]
        },
        .control("add_consumer") { call, panel in
            let queue = try call.arguments.text("queue")
            guard !queue.isEmpty else { throw ControlRefusal("add_consumer: the argument queue is empty") }
            if case .refused(let why) = await panel.engine.perform(.addQueue(QueueSubscription(queue))),
                !why.hasSuffix("already")
            {
                throw ControlRefusal("add_consumer: \(why)")
            }
            return ["ok": .string("add consumer \(queue)")]
        },
        .control("cancel_consumer") { call, panel in
            let queue = try call.arguments.text("queue")
            _ = await panel.engine.perform(.removeQueue(queue))
            return ["ok": .string("no longer consuming from \(queue)")]
        },
        .control("rate_limit") { call, panel in
            let name = try call.arguments.text("task_name")
            let rate: StartRate?
            guard let asked = call.arguments.values["rate_limit"] else {
                throw ControlRefusal("rate_limit: the argument rate_limit is missing")
            }
            do throws(ControlRefusal) { rate = try StartRate(asked) } catch {
                // As Celery words it: a ValueError with a text in front, a KeyError without.
                let isPlain = error.message.hasPrefix("KeyError") || error.message.hasPrefix("rate_limit:")
                return ["error": .string((isPlain ? "" : "Invalid rate limit string: ") + error.message)]
            }
            guard await panel.engine.setRate(rate, of: name) else { return ["error": "unknown task"] }
            return ["ok": .string(rate == nil ? "rate limit disabled successfully" : "new rate limit set successfully")]
        },
        .control("time_limit") { call, panel in
            let name = try call.arguments.text("task_name")
            guard await panel.engine.knows(name) else { return ["error": "unknown task"] }
            // Zero means none, as in Python.
            func limit(_ name: String) throws(ControlRefusal) -> Duration? {
                guard let limit = try call.arguments.secondsIfPresent(name), limit > .zero else { return nil }
                return limit
            }
            let limits = RunLimits(time: try limit("soft"), hardTime: try limit("hard"))
            do { try panel.setLimits(limits, name) } catch { throw ControlRefusal("time_limit: \(error)") }
            return ["ok": "time limits set successfully"]
        },
    ]

    private static func lane(_ call: ControlCall) throws(ControlRefusal) -> LaneKind? {
        guard let name = try call.arguments.textIfPresent("lane") else { return nil }
        guard let lane = [LaneKind.async, .blocking, .process].first(where: { $0.name == name }) else {
            throw ControlRefusal("\(call.arguments.command): the argument lane must be async, blocking or process")
        }
        return lane
    }

    private static func resize(_ call: ControlCall, _ panel: ControlPanel, by count: Int) async throws {
        if let refusal = await panel.engine.resize(lane: try lane(call), by: count) {
            throw ControlRefusal(
                refusal.hasPrefix("autoscale")
                    ? "\(call.arguments.command) is not supported with autoscale. Adjust autoscale range instead."
                    : "\(call.arguments.command): \(refusal)")
        }
    }
}

/// How often jobs of a kind may start, as Celery's `rate_limit` says it.
struct StartRate: Sendable, Hashable {
    /// Starts in a second.
    var perSecond: Double
    /// As it was said.
    var text: String

    /// - Parameter value: a number of starts in a second, or text as `10/m`; 0, empty and null for no limit.
    /// - Throws: ``ControlRefusal`` for anything else.
    /// - Returns: nil for no limit.
    init?(_ value: WireValue) throws(ControlRefusal) {
        let number: Double
        var seconds = 1.0
        switch value {
        case .null: return nil
        case .string(let text):
            let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
            if text.isEmpty { return nil }
            guard let count = Double(parts[0]) else {
                throw ControlRefusal(
                    "ValueError(\"could not convert string to float: \(PythonText.quoted(String(parts[0])))\")")
            }
            if parts.count == 2 {
                switch parts[1] {
                case "s", "": seconds = 1
                case "m": seconds = 60
                case "h": seconds = 3600
                default: throw ControlRefusal("KeyError(\(PythonText.quoted(String(parts[1]))))")
                }
            }
            number = count
        default:
            guard let count = value.doubleValue else {
                throw ControlRefusal("rate_limit: the argument rate_limit is no number and no text")
            }
            number = count
        }
        guard number.isFinite, number >= 0, number <= 1_000_000 else {
            throw ControlRefusal("rate_limit: the argument rate_limit must be from 0 to 1,000,000")
        }
        if number == 0 { return nil }
        guard number / seconds >= 1e-6 else {
            throw ControlRefusal("rate_limit: the argument rate_limit must be 0, or one start in 11 days at least")
        }
        text = value.stringValue ?? value.description
        perSecond = number / seconds
    }
}
