import ArgumentParser
import Hoist

/// Whom a command asks, and for how long.
struct FleetOptions: ParsableArguments {
    @Option(name: .long, help: "Only the worker of this name, name@host; may be repeated.") var on: [String] = []
    @Option(name: .long, help: "Only workers whose names match, as in 'media-*@*'.") var pattern: String?
    @Option(name: .long, help: "How many seconds to wait for a reply (default: 1).") var timeout = 1.0

    func validate() throws {
        guard timeout > 0, timeout <= 3600 else { throw ValidationError("--timeout takes 0 to 3600 seconds") }
        guard on.isEmpty || pattern == nil else { throw ValidationError("name --on or --pattern, not both") }
    }

    var target: ControlTarget { pattern.map { .pattern($0) } ?? (on.isEmpty ? .all : .nodes(on)) }
    var wait: Duration { .milliseconds(Int64(timeout * 1000)) }
}

struct InspectCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Ask live workers, Swift and Python, what they are and do.",
        discussion: """
            ping, stats, active, reserved, scheduled, revoked, registered, active_queues, conf, report, clock, query_task, memsample, \
            and what workers of yours register. It ends with 69 when nobody answers.
              hoist inspect active
              hoist inspect stats --on encoder-1@gpu-7
              hoist inspect query_task ID ID
            """)
    @OptionGroup var options: InspectionOptions
    @OptionGroup var fleet: FleetOptions
    @Argument(help: "What to ask.") var command: String
    @Argument(help: "Arguments, in their order or as NAME=VALUE.") var arguments: [String] = []

    func perform() async throws {
        guard !FleetArguments.changing.contains(command) else {
            throw ValidationError("\(command) changes something: hoist control \(command)")
        }
        try await FleetCommand.run(command, arguments, options, fleet)
    }
}

struct ControlCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "control", abstract: "Steer live workers, Swift and Python.",
        discussion: """
            It ends with 69 when nobody answers; shutdown is never answered.
              hoist control shutdown --on encoder-1@gpu-7
              hoist control pool_grow 2 lane=process
              hoist control rate_limit mail.send 10/m
              hoist control time_limit video.process 600 900
              hoist control add_consumer media
              hoist control terminate SIGKILL ID
              hoist control enable_events
            """)
    @OptionGroup var options: InspectionOptions
    @OptionGroup var fleet: FleetOptions
    @Argument(help: "What to do.") var command: String
    @Argument(help: "Arguments, in their order or as NAME=VALUE.") var arguments: [String] = []

    func perform() async throws {
        if command == "shutdown" {
            try await Fleet(options.open()).shutDown(fleet.target)
            return print(options.json ? "{}" : "the workers were told to drain and end; none answers")
        }
        try await FleetCommand.run(command, arguments, options, fleet)
    }
}

/// What `hoist inspect` and `hoist control` share.
enum FleetCommand {
    static func run(
        _ command: String, _ arguments: [String], _ options: InspectionOptions, _ fleet: FleetOptions
    ) async throws {
        let query = Fleet.Query(command, try FleetArguments.parsed(command, arguments))
        let replies = try await Fleet(options.open()).replies(to: query, of: fleet.target, timeout: fleet.wait)
        if options.json {
            print(JSONText.shown(.object(.init(replies.sorted { $0.key < $1.key }.map { ($0, $1) }))))
        } else if !replies.isEmpty {
            print(FleetPrinting.replies(replies, to: command))
        }
        guard !replies.isEmpty else {
            if !options.json { FleetPrinting.complain("no worker answered within \(fleet.timeout) s") }
            throw nobodyAnswered
        }
    }
}

/// Arguments of requests, as they are written on the command line.
enum FleetArguments {
    /// The names of arguments that may be written without a name; `…` behind one that takes the rest.
    private static let names: [String: [String]] = [
        "query_task": ["ids…"], "registered": ["taskinfoitems…"], "revoke": ["task_id…"],
        "terminate": ["signal", "task_id…"], "revoke_by_stamped_headers": ["headers…"],
        "rate_limit": ["task_name", "rate_limit"], "time_limit": ["task_name", "soft", "hard"], "pool_grow": ["n"],
        "pool_shrink": ["n"], "autoscale": ["max", "min"],
        "add_consumer": ["queue", "exchange", "exchange_type", "routing_key"], "cancel_consumer": ["queue"],
        "memdump": ["samples"],
    ]

    /// Commands of every worker that change something.
    static let changing: Set<String> = [
        "revoke", "terminate", "revoke_by_stamped_headers", "rate_limit", "time_limit", "enable_events",
        "disable_events", "heartbeat", "pool_grow", "pool_shrink", "pool_restart", "autoscale", "add_consumer",
        "cancel_consumer", "shutdown", "quiet", "resume", "election",
    ]

    static func parsed(_ command: String, _ words: [String]) throws -> WireValue.Object {
        if words.count == 1, words[0].hasPrefix("{") {
            guard case .object(let object)? = try? JSONText.parse(Array(words[0].utf8)) else {
                throw ValidationError("the arguments are no JSON object")
            }
            return object
        }
        var places = (names[command] ?? [])[...]
        var arguments: WireValue.Object = [:]
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let isNamed = parts.count == 2 && parts[0].allSatisfy { $0.isLetter || $0 == "_" }
            if isNamed, command != "revoke_by_stamped_headers" {
                arguments[String(parts[0])] = value(String(parts[1]), of: String(parts[0]))
            } else if let place = places.first {
                guard place.hasSuffix("…") else {
                    arguments[place] = value(word, of: place)
                    places.removeFirst()
                    continue
                }
                let name = String(place.dropLast())
                arguments[name] = .array((arguments[name]?.arrayValue ?? []) + [.string(word)])
            } else {
                throw ValidationError("\(command) takes no argument \(word) here: write NAME=VALUE, or one JSON object")
            }
        }
        return arguments
    }

    private static let texts: Set<String> = ["task_name", "rate_limit", "queue", "signal", "lane", "task_id"]

    private static func value(_ text: String, of name: String) -> WireValue {
        if texts.contains(name) { return .string(text) }
        return (try? JSONText.parse(Array(text.utf8))) ?? .string(text)
    }
}
