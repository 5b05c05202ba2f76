import Foundation
import Hoist

/// A canvas as Celery's workers ran it.
struct CanvasCapture {
    var messages: [Message]
    var results: [WireValue]
    /// The sizes of the groups that start something, as far as their members tell.
    var sizes: [String: Int] = [:]

    init(_ name: String) throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/canvas/\(name).json")
        let value = try JSONParser.parse(Array(try Data(contentsOf: file)))
        messages = try (value["messages"]?.arrayValue ?? []).map { envelope in
            try Message(envelope: Array(envelope.description.utf8))
        }
        results = value["results"]?.arrayValue ?? []
        // A member that is a chain or a chord carries its group further inside.
        for message in messages where message.headers.parentID == nil {
            let embed = try message.decodedBody().embed
            func walk(_ value: WireValue) {
                if let options = value["options"], let group = options["group_id"]?.stringValue,
                    options["group_index"]?.isNull == false, options["group_index"] != nil, options["chord"] != nil
                {
                    sizes[group] = max(sizes[group] ?? 0, Int(options["group_index"]?.integerValue ?? 0) + 1)
                }
                switch value {
                case .array(let elements): for element in elements { walk(element) }
                case .object(let object): for (_, member) in object { walk(member) }
                default: break
                }
            }
            walk(embed)
        }
        for message in messages {
            guard let group = message.headers.group, let index = message.headers.groupIndex,
                try message.decodedBody().embed["chord"]?.isNull == false
            else { continue }
            sizes[group] = max(sizes[group] ?? 0, Int(index) + 1)
        }
    }

    /// The last result of a job.
    func result(of id: JobID) -> WireValue? { results.last { $0["task_id"]?.stringValue == id } }

    /// The jobs that Celery's worker started behind a job, its own retries left out.
    func started(by id: JobID) -> [Message] {
        messages.filter { $0.headers.parentID == id && $0.id != id }
    }

    /// The messages in texts that are the same for the same canvas: names and arguments, in no order, for workers run
    /// beside each other.
    static func shapes(_ messages: [Message]) -> [String] {
        messages.map { message in
            let body = try? message.decodedBody()
            let arguments = WireValue.array(body?.arguments.positional ?? [])
            let chain = body?.embed["chain"]?.arrayValue
            let follows = [
                chain.map { "chain of \($0.count)" }, body?.embed["chord"]?["task"]?.stringValue.map { "chord \($0)" },
                (body?.embed["callbacks"]?.arrayValue?.count).map { "\($0) callbacks" },
                (body?.embed["errbacks"]?.arrayValue?.count).map { "\($0) errbacks" },
            ].compactMap { $0 }
            let place = message.headers.groupIndex.map { " at \($0)" } ?? ""
            let group = message.headers.group == nil ? "" : " in a group"
            let isDelayed = message.headers.eta == nil ? "" : " later"
            return "\(message.jobName)\(arguments)\(group)\(place)\(isDelayed) \(follows.joined(separator: ", "))"
        }.sorted()
    }
}
