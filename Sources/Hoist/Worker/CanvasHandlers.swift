/// The tasks of Celery's own that a canvas may ask for. Every worker performs them, for the names that it has handlers
/// for.
///
/// Source: `celery/app/builtins.py`, version 5.7.
enum CanvasHandlers {
    /// - Parameter handlers: those of the worker, by name. A name that the worker has itself stays its own.
    static func added(to handlers: [String: RegisteredHandler]) -> [String: RegisteredHandler] {
        let own = [
            Handler(named: "celery.map") { arguments, context in
                try await each(arguments, context, handlers) { Arguments(positional: [$0]) }
            },
            Handler(named: "celery.starmap") { arguments, context in
                try await each(arguments, context, handlers) { item in
                    guard let values = item.arrayValue else {
                        throw ArgumentError(parameter: "it", problem: "expected an array of arguments")
                    }
                    return Arguments(positional: values)
                }
            },
            Handler(named: "celery.accumulate") { arguments, _ in
                guard let index = arguments.keyword["index"]?.integerValue else { return .array(arguments.positional) }
                guard arguments.positional.indices.contains(Int(clamping: index)) else {
                    throw ArgumentError(parameter: "index", problem: "there is no argument \(index)")
                }
                return arguments.positional[Int(index)]
            },
        ]
        var all = handlers
        for handler in own {
            for name in handler.names where all[name] == nil { all[name] = RegisteredHandler(handler) }
        }
        return all
    }

    /// Performs a job for each item in turn. The first item that fails fails all.
    private static func each(
        _ arguments: Arguments, _ context: JobContext, _ handlers: [String: RegisteredHandler],
        _ call: (WireValue) throws -> Arguments
    ) async throws -> WireValue {
        guard let task = arguments.keyword["task"] else { throw ArgumentError(parameter: "task", problem: "missing") }
        guard let items = arguments.keyword["it"]?.arrayValue else {
            throw ArgumentError(parameter: "it", problem: "expected an array")
        }
        let signature = try Signature(task)
        guard let handler = handlers[signature.task] else {
            // It waits for a worker that knows the name, as a job of that name would.
            throw JobDirective.snooze(for: .seconds(1))
        }
        guard handler.lane == .async else {
            throw JobFailure(
                kind: .unsupported, type: "UnsupportedCanvas",
                message:
                    "\(context.name) performs handlers of the async lane, and \(signature.task) runs in the \(handler.lane) lane"
            )
        }
        var outputs: [WireValue] = []
        for item in items {
            try Task.checkCancellation()
            var call = try call(item)
            call.keyword = signature.keywordArguments
            let output = try await handler.perform(call, context)
            outputs.append(try JSONParser.parse(output))
            context.heartbeat()
        }
        return .array(outputs)
    }
}
