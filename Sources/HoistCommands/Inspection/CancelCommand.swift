import ArgumentParser
import Hoist

struct CancelCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "Cancel jobs: at once those that wait, by asking those that run.",
        discussion: """
            Name ids, or say which jobs by --name, --queue or --header, which must all fit; --stamp has every live worker drop and stop \
            jobs with that stamp, whenever they come.
              hoist cancel ID ID
              hoist cancel --queue media --name video.process
              hoist cancel --header tenant=acme
              hoist cancel --stamp tenant=acme
            """)
    @OptionGroup var options: InspectionOptions
    @Argument(help: "Ids of jobs.") var ids: [String] = []
    @Option(name: .long, help: "Jobs of this name.") var name: String?
    @Option(name: .long, help: "Jobs of this queue.") var queue: String?
    @Option(name: .long, help: "Jobs with this header, KEY=VALUE.") var header: String?
    @Option(name: .long, help: "Jobs with this stamp, KEY=VALUE.") var stamp: String?

    func validate() throws {
        let filters = [name, queue, header].compactMap { $0 }
        guard !ids.isEmpty || !filters.isEmpty || stamp != nil else {
            throw ValidationError("name ids, or --name, --queue, --header or --stamp")
        }
        guard ids.isEmpty || (filters.isEmpty && stamp == nil) else {
            throw ValidationError("name ids, or say which jobs, not both")
        }
        _ = try pair(header, "--header")
        _ = try pair(stamp, "--stamp")
    }

    func perform() async throws {
        let backend = try options.open()
        if ids.count == 1 { return try await cancelOne(ids[0], backend) }
        var results: [(id: JobID, result: CancelResult)] = []
        for id in ids { results.append((id, try await backend.cancel(id))) }
        if name != nil || queue != nil || header != nil {
            for id in try await matching(backend) { results.append((id, try await backend.cancel(id))) }
        }
        var answer: WireValue.Object = [:]
        for word in ["cancelled", "requested", "already ended", "unknown"] {
            answer[word] = .integer(Int64(results.count { Self.word($0.result) == word }))
        }
        var isUnanswered = false
        if let stamp = try pair(stamp, "--stamp") {
            let replies = try await Fleet(backend).revoke(stamped: [stamp.key: [stamp.value]], terminate: .term)
            answer["workers"] = .integer(Int64(replies.count))
            isUnanswered = replies.isEmpty
        }
        if options.json {
            print(JSONText.shown(.object(answer)))
        } else {
            let told = answer.filter { $0.value != 0 }.map { "\($0.value) \($0.key)" }
            print(told.isEmpty ? "0 cancelled" : told.joined(separator: ", "))
        }
        if isUnanswered {
            if !options.json { FleetPrinting.complain("no worker answered") }
            throw nobodyAnswered
        }
        if !ids.isEmpty, results.allSatisfy({ $0.result == .unknown }) {
            throw CommandFailure("none of these jobs is known")
        }
        let isDone = results.contains { $0.result == .cancelled || $0.result == .requested }
        if stamp == nil, !isDone { throw ExitCode(1) }
    }

    private func cancelOne(_ id: JobID, _ backend: Backend) async throws {
        let result = try await backend.cancel(id)
        guard result != .unknown else { throw CommandFailure("no job \(TerminalText.line(id))") }
        let word = Self.word(result)
        print(options.json ? JSONText.shown(["id": .string(id), "result": .string(word)] as WireValue) : word)
        if result == .alreadyEnded { throw ExitCode(1) }
    }

    /// The jobs that have not ended and fit what was said.
    private func matching(_ backend: Backend) async throws -> [JobID] {
        let wanted = try pair(header, "--header")
        let states = Set(JobState.allCases.filter { !$0.hasEnded })
        var ids: [JobID] = []
        var cursor: JobCursor?
        repeat {
            let page = try await backend.page(
                JobFilter(states: states, queue: queue, name: name, limit: 500), after: cursor)
            for job in page.jobs {
                if let wanted {
                    guard let value = job.headers[wanted.key], value.stringValue ?? value.description == wanted.value
                    else {
                        continue
                    }
                }
                ids.append(job.id)
            }
            cursor = page.next
        } while cursor != nil
        return ids
    }

    private func pair(_ text: String?, _ option: String) throws -> (key: String, value: String)? {
        guard let text else { return nil }
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty else { throw ValidationError("\(option) takes KEY=VALUE") }
        return (String(parts[0]), String(parts[1]))
    }

    private static func word(_ result: CancelResult) -> String {
        switch result {
        case .cancelled: "cancelled"
        case .requested: "requested"
        case .alreadyEnded: "already ended"
        case .unknown: "unknown"
        }
    }
}
