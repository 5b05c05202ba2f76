import Hoist
import Logging
import RESP

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

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
        Handler(named: "celery.accumulate") { arguments, _ in
            guard let index = arguments.keyword["index"]?.integerValue else { return .array(arguments.positional) }
            guard arguments.positional.indices.contains(Int(clamping: index)) else {
                throw WrongArguments("index out of range")
            }
            return arguments.positional[Int(index)]
        },
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
    static func handles(_ redis: RESPClient) -> [Handler] {
        [
            .task("redis_echo") { call in
                let values = try call.bound(["message"], optional: ["redis_key"])
                let (key, message) = (values["redis_key"]?.stringValue ?? "redis-echo", values["message"] ?? nil)
                _ = try await redis.send(
                    RESPCommand("RPUSH", [.text(key), .text(message.stringValue ?? message.description)]))
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
