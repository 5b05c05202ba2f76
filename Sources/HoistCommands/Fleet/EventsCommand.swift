import ArgumentParser
import Hoist

struct EventsCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happens to jobs and workers, one line each, until it is interrupted.",
        discussion: """
            Workers that do not send events of their jobs are asked to.
              hoist events --type task-failed --type task-retried
              hoist events --name mail.send
            """)
    @OptionGroup var options: InspectionOptions
    @Option(name: .long, help: "Only events of this type, as in task-failed; may be repeated.") var type: [String] = []
    @Option(name: .long, help: "Only the job of this id.") var job: String?
    @Option(name: .long, help: "Only jobs of this name.") var name: String?
    @Option(name: .long, help: "End after so many events.") var count: Int?

    func perform() async throws {
        let fleet = try Fleet(options.open())
        // The name is told only when a job is sent or claimed.
        var named: Set<JobID> = []
        var shown = 0
        for await event in try await fleet.heardEvents() {
            let isGap = if case .missed = event { true } else { false }
            if let name, !isGap {
                guard let job = event.job else { continue }
                if let told = job.name {
                    guard told == name else { continue }
                    if named.count < 100_000 { named.insert(job.id) }
                } else if !named.contains(job.id) {
                    continue
                }
            }
            switch event {
            case .succeeded(let job), .failed(let job), .revoked(let job): named.remove(job.id)
            default: break
            }
            if !isGap {
                if let job, event.job?.id != job { continue }
                guard type.isEmpty || type.contains(event.facts.type) else { continue }
            }
            print(options.json ? JSONText.shown(.object(event.facts.fields)) : FleetPrinting.event(event))
            FleetPrinting.flush()
            if isGap { continue }
            shown += 1
            if shown == count { return }
        }
    }
}
