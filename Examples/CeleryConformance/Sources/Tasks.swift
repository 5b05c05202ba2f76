import Foundation
import Hoist
import Logging
import RESP

private let module = "t.integration.tasks"

extension Handler {
    /// One of the suite's tasks, with its arguments as they came.
    fileprivate static func task(
        _ name: String, options: JobOptions = JobOptions(),
        _ perform: @escaping @Sendable (Call) async throws -> WireValue
    ) -> Handler {
        Handler(named: "\(module).\(name)", options: options) { arguments, context in
            try await perform(Call(arguments: arguments, context: context))
        }
    }
}

/// One call of a Python function: arguments by place and by name.
private struct Call {
    let arguments: Arguments
    let context: JobContext

    /// The arguments of a signature with these parameters.
    /// - Throws: ``WrongArguments``, which Python knows as TypeError.
    func bound(_ required: [String], optional: [String] = []) throws -> [String: WireValue] {
        let names = required + optional
        guard arguments.positional.count <= names.count else { throw WrongArguments("too many positional arguments") }
        var values = Dictionary(uniqueKeysWithValues: zip(names, arguments.positional))
        for (name, value) in arguments.keyword {
            guard names.contains(name) else { throw WrongArguments("got an unexpected keyword argument '\(name)'") }
            guard values.updateValue(value, forKey: name) == nil else {
                throw WrongArguments("got multiple values for argument '\(name)'")
            }
        }
        for name in required where values[name] == nil {
            throw WrongArguments("missing a required argument: '\(name)'")
        }
        return values
    }
}

private struct WrongArguments: CrossLanguageError, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
    var typeName: String { "TypeError" }
    var module: String? { "builtins" }
    var arguments: [WireValue] { [.string(description)] }
}

/// An exception of the suite's own, or of Python.
private struct PythonError: CrossLanguageError, CustomStringConvertible {
    var typeName: String
    var module: String?
    var arguments: [WireValue]
    var description: String { "\(typeName)(\(arguments.map(\.description).joined(separator: ", ")))" }

    static func expected(_ arguments: WireValue...) -> PythonError {
        PythonError(typeName: "ExpectedException", module: "t.integration.tasks", arguments: arguments)
    }
    static func value(_ arguments: WireValue...) -> PythonError {
        PythonError(typeName: "ValueError", module: "builtins", arguments: arguments)
    }
    /// Celery's replacement for an exception that no message can carry: its class and its arguments, in words.
    static func unpickleable(_ foo: WireValue) -> PythonError {
        PythonError(
            typeName: "UnpickleableExceptionWrapper", module: "celery.utils.serialization",
            arguments: [
                "t.integration.tasks", "UnpickleableException", [foo], .string("UnpickleableException(\(foo))"),
            ])
    }
}

private func sum(_ values: [WireValue]) throws -> WireValue {
    // Python adds texts and lists as well.
    let lists = values.compactMap(\.arrayValue)
    if !lists.isEmpty, lists.count == values.count { return .array(lists.flatMap { $0 }) }
    let texts = values.compactMap(\.stringValue)
    if !texts.isEmpty, texts.count == values.count { return .string(texts.joined()) }
    var total: Int64 = 0
    for value in values {
        guard let number = value.integerValue else { throw WrongArguments("unsupported operand type(s) for +") }
        total += number
    }
    return .integer(total)
}

enum BuiltInTasks {
    static let handles = [
        Handler(named: "celery.ping") { _, _ in "pong" },
        Handler(named: "celery.backend_cleanup") { _, _ in nil },
    ]
}

enum ArithmeticTasks {
    static let handles: [Handler] = [
        .task("identity") { call in try call.bound(["x"])["x"] ?? nil },
        add("add", optional: ["z"]), add("add_not_typed"),
        add("add_ignore_result", options: JobOptions(result: .ignore)),
        add("add_with_result"),
        .task("mul") { call in
            let values = try call.bound(["x", "y"])
            guard let x = values["x"]?.integerValue, let y = values["y"]?.integerValue else {
                throw WrongArguments("can't multiply")
            }
            return .integer(x * y)
        },
        .task("tsum") { call in try sum(try call.bound(["nums"])["nums"]?.arrayValue ?? []) },
        .task("xsum") { call in
            try sum(try (call.bound(["nums"])["nums"]?.arrayValue ?? []).map { try $0.arrayValue.map(sum) ?? $0 })
        },
        .task("delayed_sum") { call in
            let values = try call.bound(["numbers"], optional: ["pause_time"])
            try await Task.sleep(for: .seconds(values["pause_time"]?.doubleValue ?? 1))
            return try sum(values["numbers"]?.arrayValue ?? [])
        },
        .task("delayed_sum_with_soft_guard") { call in
            let values = try call.bound(["numbers"], optional: ["pause_time"])
            do { try await Task.sleep(for: .seconds(values["pause_time"]?.doubleValue ?? 1)) } catch { return 0 }
            return try sum(values["numbers"]?.arrayValue ?? [])
        },
        .task("sleeping") { call in
            let seconds = call.arguments.positional.first?.doubleValue ?? call.arguments.keyword["i"]?.doubleValue
            guard let seconds else { throw WrongArguments("missing a required argument: 'i'") }
            try await Task.sleep(for: .seconds(seconds))
            return nil
        },
        .task("print_unicode") { call in
            let values = try call.bound([], optional: ["log_message", "print_message"])
            call.context.logger.warning("\(values["log_message"]?.stringValue ?? "håå®ƒ valmuefrø")")
            print(values["print_message"]?.stringValue ?? "hiöäüß")
            return nil
        },
        .task("return_exception") { call in [try call.bound(["e"])["e"] ?? nil, true] },
        addModel("add_pydantic"), addModel("add_pydantic_string_annotations"),
    ]

    private static func add(_ name: String, optional: [String] = [], options: JobOptions = JobOptions()) -> Handler {
        .task(name, options: options) { call in
            let values = try call.bound(["x", "y"], optional: optional)
            return try sum(["x", "y", "z"].compactMap { values[$0] }.filter { !$0.isNull })
        }
    }

    /// Python checks these by a model of pydantic's; here the same model is a type.
    private static func addModel(_ name: String) -> Handler {
        .task(name) { call in
            guard let data = try call.bound(["data"])["data"], let x = data["x"]?.integerValue,
                let y = data["y"]?.integerValue
            else {
                throw WrongArguments("data is no AddParameterModel")
            }
            return ["result": .integer(x + y)]
        }
    }
}

enum FailingTasks {
    static let handles: [Handler] = [
        .task("fail") { call in
            throw PythonError(
                typeName: "ExpectedException", module: module,
                arguments: ["Task expected to fail"] + call.arguments.positional)
        },
        .task("raise_error") { _ in throw PythonError.value("deliberate error") },
        .task("fail_unpickleable") { call in
            throw PythonError.unpickleable(try call.bound(["foo", "bar"])["foo"] ?? nil)
        },
        .task("reject_without_requeue") { _ in throw JobDirective.deadLetter("rejected") },
        .task("reject_then_succeed") { call in
            guard call.context.messageProperties.isRedelivered else { throw JobDirective.snooze(for: .zero) }
            return "second-pass"
        },
    ]
}

enum RetryingTasks {
    /// Celery's own default: three retries.
    private static let threeRetries = JobOptions(retry: .fixed(.seconds(1), maxAttempts: 4))
    private static let oneRetry = JobOptions(retry: .fixed(.seconds(1), maxAttempts: 2))

    static let handles: [Handler] = [
        .task("retry", options: threeRetries) { call in
            let value = try call.bound([], optional: ["return_value"])["return_value"] ?? nil
            if !value.isNull, call.context.attempt > 3 { return value }
            throw JobDirective.retry(after: .seconds(5), because: PythonError.expected())
        },
        .task("retry_unpickleable", options: threeRetries) { call in
            let values = try call.bound(["foo", "bar", "retry_kwargs"])
            let options = values["retry_kwargs"] ?? nil
            throw JobDirective.retry(
                after: .seconds(options["countdown"]?.doubleValue ?? 1),
                because: PythonError.unpickleable(values["foo"] ?? nil),
                maxAttempts: options["max_retries"]?.integerValue.map { Int($0) + 1 })
        },
        .task("retry_with_args_after_kwargs", options: oneRetry) { call in
            var values = try call.bound(["foo", "bar"], optional: ["label"])
            if call.context.attempt == 1 {
                for name in ["foo", "bar"] { values[name] = .integer((values[name]?.integerValue ?? 0) + 1) }
                var keyword = call.arguments.keyword
                for name in ["foo", "bar"] { keyword[name] = nil }
                let positional = [values["foo"] ?? nil, values["bar"] ?? nil]
                throw JobDirective.retry(after: .zero, arguments: Arguments(positional: positional, keyword: keyword))
            }
            return [
                "foo": values["foo"] ?? nil, "bar": values["bar"] ?? nil, "label": values["label"] ?? nil,
                "retries": .integer(Int64(call.context.attempt - 1)), "is_eager": false,
            ]
        },
        .task("retry_with_kwargs_after_args", options: oneRetry) { call in
            let values = try call.bound(["foo", "bar"])
            if call.context.attempt == 1 {
                let changed: WireValue = .integer((values["foo"]?.integerValue ?? 0) + 1)
                throw JobDirective.retry(
                    after: .zero, arguments: Arguments(keyword: ["foo": changed, "bar": values["bar"] ?? nil]))
            }
            return [
                "foo": values["foo"] ?? nil, "bar": values["bar"] ?? nil,
                "retries": .integer(Int64(call.context.attempt - 1)),
                "is_eager": false,
            ]
        },
        once("retry_once") { .integer(Int64($0.context.attempt - 1)) },
        once("retry_once_priority") { $0.context.messageProperties.priority.map { .integer(Int64($0)) } ?? nil },
        once("retry_once_headers") { .object($0.context.headers) },
        once("retry_once_ignore_result", after: 0, options: JobOptions(retry: oneRetry.retry, result: .ignore)) {
            .integer(Int64($0.context.attempt - 1))
        },
        once("retry_once_with_result", after: 0) { .integer(Int64($0.context.attempt - 1)) },
        Handler(
            named: "auto_retry_class_task",
            options: JobOptions(retry: .exponential(initial: .seconds(1), maxAttempts: 2))
        ) { _, context in
            guard context.attempt > 1 else { throw PythonError.value() }
            return .integer(Int64(context.attempt - 1))
        },
    ]

    private static func once(
        _ name: String, after seconds: Double = 0.1, options: JobOptions = oneRetry,
        _ value: @escaping @Sendable (Call) -> WireValue
    ) -> Handler {
        .task(name, options: options) { call in
            guard call.context.attempt == 1 else { return value(call) }
            let countdown = call.arguments.keyword["countdown"]?.doubleValue ?? seconds
            let retries = call.arguments.keyword["max_retries"]?.integerValue ?? 1
            throw JobDirective.retry(after: .seconds(countdown), maxAttempts: Int(retries) + 1)
        }
    }
}

enum RequestTasks {
    static let handles: [Handler] = [
        .task("ids") { call in
            [
                .string(call.context.rootID), call.context.parentID.map(WireValue.string) ?? nil,
                try call.bound(["i"])["i"] ?? nil,
            ]
        },
        .task("return_request_eta") { call in
            call.context.messageHeaders.eta.map { .string($0.formatted(.iso8601)) } ?? nil
        },
        .task("return_priority") { call in .string("Priority: \(call.context.messageProperties.priority ?? 0)") },
        .task("return_properties") { call in
            let properties = call.context.messageProperties
            var object = properties.custom
            object["correlation_id"] = properties.correlationID.map(WireValue.string) ?? nil
            object["reply_to"] = properties.replyTo.map(WireValue.string) ?? nil
            object["priority"] = properties.priority.map { .integer(Int64($0)) } ?? nil
            object["delivery_mode"] = .integer(properties.deliveryMode)
            return .object(object)
        },
        timeLimits("return_request_time_limits", hard: nil, soft: nil),
        timeLimits("task_with_declared_time_limits", hard: 60, soft: 45),
        .task("soft_time_limit_must_exceed_time_limit") { _ in nil },
        .task("replaced_with_me") { _ in true },
        .task("collect_ids") { call in
            let values = try call.bound(["res", "i"])
            return [
                values["res"] ?? nil,
                [
                    .string(call.context.rootID), call.context.parentID.map(WireValue.string) ?? nil,
                    values["i"] ?? nil,
                ],
            ]
        },
    ]

    private static func timeLimits(_ name: String, hard: Double?, soft: Double?) -> Handler {
        .task(name) { call in
            let headers = call.context.messageHeaders
            func number(_ seconds: Double?) -> WireValue {
                seconds.map { Int64(exactly: $0).map(WireValue.integer) ?? .double($0) } ?? nil
            }
            return [
                "time_limit": number(headers.hardTimeLimit ?? hard),
                "soft_time_limit": number(headers.softTimeLimit ?? soft),
            ]
        }
    }
}

enum RedisTasks {
    /// Text, or bytes of text as kombu sends them.
    private static func text(_ value: WireValue) -> String {
        value.stringValue ?? value["__value__"]?.stringValue ?? value.description
    }

    /// Runs a step and itself once more in its place, and notes when it begins and when it ends.
    private static func orderedReplacement(
        _ name: String, _ label: String, _ step: Signature, _ redis: RESPClient
    ) -> Handler {
        .task(name) { call in
            let hasBegun = try call.bound([], optional: ["state"])["state"]?.boolValue ?? false
            let line = hasBegun ? "Out \(label)" : "In \(label)"
            _ = try await redis.send(RESPCommand("RPUSH", ["redis-echo", .text(line)]))
            if hasBegun { return nil }
            let again = Signature.task("\(module).\(name)", [], ["state": true], isImmutable: true)
            throw JobDirective.replace(by: .chain([step, again]))
        }
    }

    static func handles(_ redis: RESPClient) -> [Handler] {
        [
            .task("redis_echo") { call in
                let values = try call.bound(["message"], optional: ["redis_key"])
                let (key, message) = (values["redis_key"]?.stringValue ?? "redis-echo", values["message"] ?? nil)
                _ = try await redis.send(
                    RESPCommand("RPUSH", [.text(key), .text(text(message))]))
                return nil
            },
            .task("redis_echo_group_id") { call in
                let key = call.arguments.keyword["redis_key"]?.stringValue ?? "redis-group-ids"
                _ = try await redis.send(
                    RESPCommand("RPUSH", [.text(key), .text(call.context.messageHeaders.group ?? "")]))
                return nil
            },
            .task("redis_count") { call in
                let key = try call.bound([], optional: ["redis_key"])["redis_key"]?.stringValue ?? "redis-count"
                _ = try await redis.send(RESPCommand("INCR", [.text(key)]))
                return nil
            },
            .task("errback_old_style") { call in
                let id = try call.bound(["request_id"])["request_id"]?.stringValue ?? ""
                _ = try await redis.send(RESPCommand("INCR", [.text(id)]))
                return .string(id)
            },
            .task("errback_old_style_with_args") { call in
                let values = try call.bound(["request_id", "label"])
                _ = try await redis.send(
                    RESPCommand(
                        "RPUSH",
                        [.text(values["request_id"]?.stringValue ?? ""), .text(values["label"]?.stringValue ?? "")]))
                return nil
            },
            .task("errback_new_style") { call in
                let id = try call.bound(["request"])["request"]?.stringValue ?? ""
                _ = try await redis.send(RESPCommand("INCR", [.text(id)]))
                return .string(id)
            },
            .task("errback_new_style_with_args") { call in
                let values = try call.bound(["request", "label"])
                _ = try await redis.send(
                    RESPCommand(
                        "RPUSH",
                        [.text(values["request"]?.stringValue ?? ""), .text(values["label"]?.stringValue ?? "")]))
                return nil
            },
            orderedReplacement("second_order_replace1", "A", .task("\(module).second_order_replace2"), redis),
            orderedReplacement(
                "second_order_replace2", "B", .task("\(module).redis_echo", ["In/Out C"]), redis),
            .task("sum_and_record") { call in
                let values = try call.bound(["values", "redis_key"])
                let total = try sum(values["values"]?.arrayValue ?? [])
                _ = try await redis.send(
                    RESPCommand("RPUSH", [.text(values["redis_key"]?.stringValue ?? ""), .text(call.context.id)]))
                return total
            },
        ]
    }
}

private func task(_ name: String, _ arguments: [WireValue] = [], isImmutable: Bool = false) -> Signature {
    .task("\(module).\(name)", arguments, isImmutable: isImmutable)
}

/// Tasks that begin canvases, are replaced by some, or return some.
enum CanvasTasks {
    static let handles: [Handler] = [
        .task("chain_add") { call in
            let values = try call.bound(["x", "y"])
            let (x, y) = (values["x"] ?? nil, values["y"] ?? nil)
            try await call.context.jobs.enqueue(canvas: .chain([task("add", [x, x]), task("add", [y])]))
            return nil
        },
        .task("chord_add") { call in
            let values = try call.bound(["x", "y"])
            let (x, y) = (values["x"] ?? nil, values["y"] ?? nil)
            try await call.context.jobs.enqueue(canvas: .chord([task("add", [x, x])], task("add", [y])))
            return nil
        },
        .task("build_chain_inside_task") { call in
            let canvas = Signature.chain([
                task("add", [1, 1]), task("add", [2]), .group([task("add", [3]), task("add", [4])]), task("add", [5]),
            ])
            return try await call.context.jobs.enqueue(canvas: canvas).tree
        },
        .task("add_replaced") { call in
            throw JobDirective.replace(by: task("add", try pair(call)))
        },
        .task("record_replaced_task_nesting") { call in
            let values = try call.bound(["replacements"], optional: ["nesting"])
            let left = values["replacements"]?.integerValue ?? 0
            let nesting =
                (values["nesting"]?.arrayValue ?? []) + [
                    .integer(call.context.messageHeaders.replacedTaskNesting)
                ]
            guard left > 0 else { return .array(nesting) }
            throw JobDirective.replace(
                by: task("record_replaced_task_nesting", [.integer(left - 1), .array(nesting)]))
        },
        .task("add_replaced_with_chain") { call in
            throw JobDirective.replace(by: .chain([task("add", try pair(call)), task("identity")]))
        },
        .task("replace_with_chain") { call in
            throw JobDirective.replace(
                by: .chain([task("identity", call.arguments.positional), task("identity")]).link(echo(call)))
        },
        .task("replace_with_chain_which_raises") { call in
            throw JobDirective.replace(
                by: .chain([task("identity", call.arguments.positional), task("raise_error")]).linkError(echo(call)))
        },
        .task("replace_with_empty_chain") { _ in throw JobDirective.replace(by: .chain([])) },
        .task("replace_with_chain_which_contains_a_group") { _ in
            throw JobDirective.replace(
                by: .chain([task("add", [1, 2]), .group([task("add", [1]), task("add", [1])])]))
        },
        .task("add_to_all") { call in
            throw JobDirective.replace(by: .group(try sums(call)))
        },
        .task("add_to_all_to_chord") { call in
            for member in try sums(call) { try await call.context.addToChord(member) }
            return 0
        },
        .task("add_chord_to_chord") { call in
            try await call.context.addToChord(.chord(try sums(call), task("tsum")))
            return 0
        },
        .task("fail_replaced") { call in
            throw JobDirective.replace(by: task("fail", call.arguments.positional, isImmutable: true))
        },
        .task("replace_with_stamped_task") { call in
            let given = try call.bound([], optional: ["replace_with"])["replace_with"] ?? nil
            let replacement = given.isNull ? task("replaced_with_me") : try Signature(given)
            throw JobDirective.replace(
                by: replacement.with("stamped_headers", ["StampOnReplace"])
                    .with("StampOnReplace", "This is the replaced task"))
        },
        .task("write_to_file_and_return_int") { call in
            let values = try call.bound(["file_name", "i"])
            let file = try FileHandle(forWritingTo: URL(fileURLWithPath: values["file_name"]?.stringValue ?? ""))
            defer { try? file.close() }
            try file.seekToEnd()
            try file.write(contentsOf: Data("\(values["i"]?.integerValue ?? 0)\n".utf8))
            return values["i"] ?? nil
        },
        .task("rebuild_signature") { call in
            try check(try Signature(try call.bound(["sig_dict"])["sig_dict"] ?? nil), depth: 0)
            return nil
        },
        nested("chain_chain", .chain([.chain([task("add")])])),
        nested("chain_group", .chain([.group([task("add")])])),
        nested("chain_chord", .chain([.chord([task("add")], task("add"))])),
        nested("group_chain", .group([.chain([task("add")])])),
        nested("group_group", .group([.group([task("add")])])),
        nested("group_chord", .group([.chord([task("add")], task("add"))])),
        nested("chord_chain", .chord([.chain([task("add")])], task("add"))),
        nested("chord_group", .chord([.group([task("add")])], task("add"))),
        nested("chord_chord", .chord([.chord([task("add")], task("add"))], task("add"))),
    ]

    private static func pair(_ call: Call) throws -> [WireValue] {
        let values = try call.bound(["x", "y"])
        return [values["x"] ?? nil, values["y"] ?? nil]
    }

    private static func sums(_ call: Call) throws -> [Signature] {
        let values = try call.bound(["nums", "val"])
        return (values["nums"]?.arrayValue ?? []).map { task("add", [$0, values["val"] ?? nil]) }
    }

    /// A link that writes the message of the call, or the output, into Redis.
    private static func echo(_ call: Call) -> Signature {
        let message = call.arguments.keyword["link_msg"] ?? nil
        return message.isNull ? task("redis_echo") : task("redis_echo", [message], isImmutable: true)
    }

    private static func nested(_ name: String, _ canvas: Signature) -> Handler {
        .task("return_nested_signature_\(name)") { _ in canvas.wireValue }
    }

    /// Whether a signature that came as an argument can be read in all its depth.
    private static func check(_ signature: Signature, depth: Int) throws {
        guard depth < 64 else { throw WrongArguments("the signature is nested too deep") }
        let keyword = signature.wireValue["kwargs"]
        for name in ["tasks", "header", "body"] {
            guard let value = keyword?[name], !value.isNull else { continue }
            for part in value.arrayValue ?? [value] { try check(try Signature(part), depth: depth + 1) }
        }
    }
}
