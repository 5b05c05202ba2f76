import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

extension PageComposer {
    func queue(_ name: String) async throws -> PageContent {
        struct View {
            var facts: [FactView]
            var canAct: Bool
            var actions: [ActionView]
        }
        let now = now
        let backend = collector.backend
        let (queue, isPaused, consumers) = collector.view { live in
            (
                live.queues.first { $0.name == name }, live.pausedQueues.contains(name),
                live.picture.liveWorkers(at: now).filter { $0.queues?.contains(name) ?? false }
            )
        }
        var facts = [
            FactView(name: "State", value: isPaused ? "paused" : "open"),
            FactView(
                name: "Workers",
                value: consumers.isEmpty ? "none" : consumers.prefix(20).map(\.name).joined(separator: ", ")),
        ]
        if let queue {
            facts += [
                FactView(name: "Waiting", value: Format.count(queue.waiting)),
                FactView(name: "Scheduled", value: Format.count(queue.scheduled)),
                FactView(name: "Running", value: Format.count(queue.running)),
                FactView(name: "Dead letters", value: Format.count(queue.failed)),
                FactView(
                    name: "Oldest",
                    value: Format.span(queue.oldestAge(at: now)).text),
            ]
        }
        let path = links.queue(name)
        var refusal = backend.queueControl == nil ? "this backend cannot pause a queue" : nil
        if !consumers.isEmpty, consumers.allSatisfy({ $0.isPython == true }) {
            let count = consumers.count
            refusal =
                "Celery knows no pauses; stop \(count == 1 ? "its worker" : "its \(count) workers") consuming instead"
        }
        let view = View(
            facts: facts, canAct: !isReadOnly,
            actions: [
                isPaused
                    ? ActionView(action: "resume", label: "Resume", path: path, refusal: refusal)
                    : ActionView(action: "pause", label: "Pause", path: path, refusal: refusal),
                ActionView(
                    action: "purge", label: "Purge", path: path, isGrave: true,
                    confirm: "Remove every job of \(name) that has not been started? They cannot be brought back.",
                    refusal: backend.editing == nil ? "this backend cannot purge a queue" : nil),
            ])
        let records = await soon {
            try await backend.page(JobFilter(states: [.waiting], queue: name, limit: 50), after: nil).jobs
        }
        var inside = list(
            "inside", title: "What waits inside", summary: "50 at most",
            rows: (records ?? []).map { JobRowView($0, links, now) },
            empty: records == nil
                ? "The backend lists no jobs, or did not answer within a second." : "Nothing waits in this queue.")
        inside.id = "inside"
        return PageContent(
            title: "Queue \(name)", section: "queues",
            fragments: [
                try await charts(Series(kind: .queue, label: name), queue: name),
                renderer.fragment("queue", "queue", view), inside,
            ], hasRange: true)
    }

    func worker(_ name: String) -> PageContent {
        struct View {
            var facts: [FactView]
            var hasLanes: Bool
            var lanes: [FactView]
            var hasNames: Bool
            var nameCount: String
            var names: [String]
            var canAct: Bool
            var actions: [ActionView]
        }
        let now = now
        let known = collector.view { live in
            live.picture.workers[name].map { worker in
                (worker, live.picture.runningJobs(at: now).filter { $0.worker == name })
            }
        }
        guard let (worker, running) = known else {
            return PageContent(
                title: "Worker", section: "workers",
                fragments: [
                    message("worker", title: "No such worker", "Nothing has been heard of a worker of this name.")
                ],
                isMissing: true)
        }
        let row = WorkerRowView(worker, links, now)
        var facts = [
            FactView(name: "State", value: row.status), FactView(name: "Runs", value: row.software),
            FactView(name: "Heard", value: row.heard.relative), FactView(name: "Slots in use", value: row.slots),
            FactView(name: "Jobs done", value: row.processed), FactView(name: "Load", value: row.load),
            FactView(name: "Memory", value: row.memory.text),
            FactView(name: "Process", value: worker.processID.map(String.init) ?? "–"),
            FactView(name: "Queues", value: worker.queues?.joined(separator: ", ").cut(to: 500) ?? "not told"),
            FactView(name: "System", value: worker.system ?? "–"),
            FactView(
                name: "Clock", value: Format.span(worker.clockSkew).text + (worker.clockSkew < 0 ? " behind" : " ahead")
            ),
        ]
        if worker.eventsLeftOut > 0 {
            facts.append(FactView(name: "Events left out", value: Format.count(worker.eventsLeftOut)))
        }
        let path = links.worker(name)
        let lanes = worker.lanes.sorted { $0.key < $1.key }.map {
            FactView(name: $0.key, value: "\($0.value.used) of \($0.value.slots)")
        }
        let view = View(
            facts: facts, hasLanes: !lanes.isEmpty, lanes: lanes, hasNames: !(worker.jobNames ?? []).isEmpty,
            nameCount: Format.count(worker.jobNames?.count ?? 0), names: Array((worker.jobNames ?? []).prefix(200)),
            canAct: !isReadOnly && worker.isAlive(at: now),
            actions: [
                ActionView(action: "grow", label: "One slot more", path: path),
                ActionView(action: "shrink", label: "One slot less", path: path),
                ActionView(action: "consume", label: "Consume", path: path, field: "Queue"),
                ActionView(action: "leave", label: "Stop consuming", path: path, field: "Queue"),
                ActionView(
                    action: "shutdown", label: "Shut down", path: path, isGrave: true,
                    confirm: "Ask \(name) to drain and end? Something else has to start it again."),
            ])
        let jobs = list(
            "running", title: "Runs now", summary: Format.count(running.count),
            running.prefix(200).map { SecretMask().hide(HistoryJob($0, at: now)) }, empty: "Nothing runs here.",
            allLink: links.jobs(Links.term("worker", name)))
        return PageContent(
            title: name, section: "workers", fragments: [jobs, renderer.fragment("worker", "worker", view)])
    }
}
