import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Replies and events of workers, for people. All text is from outside.
enum FleetPrinting {
    static func replies(_ replies: [String: WireValue], to command: String) -> String {
        let sorted = replies.sorted { $0.key < $1.key }
        switch command {
        case "active", "reserved": return jobs(sorted)
        case "scheduled": return delayed(sorted)
        case "active_queues": return queues(sorted)
        default: return sorted.map { node, value in reply(node, value) }.joined(separator: "\n")
        }
    }

    private static func reply(_ node: String, _ value: WireValue) -> String {
        let name = TerminalText.line(node)
        if let error = value["error"]?.stringValue { return "\(name): refused: \(TerminalText.line(error))" }
        if case .object(let members) = value, members.count == 1, let text = members["ok"]?.stringValue {
            return "\(name): "
                + text.split(separator: "\n").map { TerminalText.line(String($0)) }.joined(separator: "\n")
        }
        let lines = lines(of: value)
        return lines.count == 1 ? "\(name): \(lines[0])" : ([name] + lines.map { "  " + $0 }).joined(separator: "\n")
    }

    /// A value in lines, members below their object.
    private static func lines(of value: WireValue) -> [String] {
        switch value {
        case .object(let members):
            guard !members.isEmpty else { return ["-"] }
            return members.flatMap { key, value -> [String] in
                let lines = lines(of: value)
                let name = TerminalText.line(key)
                return lines.count == 1 ? ["\(name): \(lines[0])"] : ["\(name):"] + lines.map { "  " + $0 }
            }
        case .array(let elements):
            guard !elements.isEmpty else { return ["-"] }
            return elements.flatMap { lines(of: $0) }
        case .string(let text): return [TerminalText.line(text)]
        case .null: return ["-"]
        default: return [value.description]
        }
    }

    private static func jobs(_ replies: [(key: String, value: WireValue)]) -> String {
        var table = TextTable("WORKER", "ID", "NAME", "STARTED", "QUEUE", "ARGUMENTS")
        var count = 0
        for (node, value) in replies {
            for job in value.arrayValue ?? [] {
                count += 1
                let started = job["time_start"]?.doubleValue.map { JobDate(timeIntervalSince1970: $0) }
                table.add(
                    node, job["id"]?.stringValue ?? "-", job["name"]?.stringValue ?? "-", Printing.age(of: started),
                    job["delivery_info"]?["routing_key"]?.stringValue ?? "-", arguments(of: job))
            }
        }
        return count == 0 ? "no jobs" : table.printed()
    }

    private static func delayed(_ replies: [(key: String, value: WireValue)]) -> String {
        var table = TextTable("WORKER", "DUE", "ID", "NAME", "ARGUMENTS")
        var count = 0
        for (node, value) in replies {
            for entry in value.arrayValue ?? [] {
                guard let job = entry["request"] else { continue }
                count += 1
                table.add(
                    node, entry["eta"]?.stringValue ?? "-", job["id"]?.stringValue ?? "-",
                    job["name"]?.stringValue ?? "-", arguments(of: job))
            }
        }
        return count == 0 ? "no jobs" : table.printed()
    }

    private static func arguments(of job: WireValue) -> String {
        let positional = job["args"]?.stringValue ?? job["args"]?.description ?? ""
        let keyword = job["kwargs"]?.stringValue ?? job["kwargs"]?.description ?? ""
        return Printing.clipped(keyword == "{}" ? positional : positional + " " + keyword)
    }

    private static func queues(_ replies: [(key: String, value: WireValue)]) -> String {
        var table = TextTable("WORKER", "QUEUES")
        for (node, value) in replies {
            table.add(node, (value.arrayValue ?? []).compactMap { $0["name"]?.stringValue }.joined(separator: ", "))
        }
        return table.printed()
    }

    /// One line.
    static func event(_ event: FleetEvent) -> String {
        if case .missed(let begin, let end) = event {
            return "\(WireTimestamp.string(from: end))  events since \(WireTimestamp.string(from: begin)) were missed"
        }
        let facts = event.facts
        var parts = [WireTimestamp.string(from: facts.at), facts.type, facts.node]
        if let job = event.job {
            parts.append(job.id)
            if let name = job.name { parts.append(name) }
            switch event {
            case .received, .sent: parts += [job.positionalText, job.keywordText].compactMap { $0 }
            case .succeeded:
                if let time = job.runTime { parts.append("\((time * 1000).rounded() / 1000) s") }
                if let result = job.result { parts.append(result) }
            case .failed, .retried: if let exception = job.exception { parts.append(exception) }
            case .progress:
                if let fraction = job.progress?.fraction { parts.append("\(Int(fraction * 100)) %") }
                if let message = job.progress?.message { parts.append(message) }
            case .log: parts += job.lines.map(\.text)
            case .takenOver: if let worker = job.lostWorker { parts.append("from \(worker)") }
            case .cancelAsked: if let result = job.cancelResult { parts.append(result) }
            default: break
            }
        } else {
            for (key, value) in [("active", facts.fields["active"]), ("processed", facts.fields["processed"])] {
                if let value { parts.append("\(key) \(value)") }
            }
        }
        return parts.map { Printing.clipped($0, to: 200) }.joined(separator: "  ")
    }

    /// Lines appear at once also where the output is a pipe.
    static func flush() { _ = fflush(nil) }

    static func complain(_ text: String) {
        let line = Array((text + "\n").utf8)
        _ = line.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
    }
}
