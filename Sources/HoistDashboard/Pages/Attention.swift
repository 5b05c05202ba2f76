import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What needs a person, the most urgent first.
enum Attention {
    /// A queue whose oldest job has waited for longer is mentioned.
    private static let longWait = 300.0
    /// A share of failures above this is mentioned.
    private static let manyFailures = 0.05
    private static let mostItems = 20

    static func items(_ live: LiveView, _ links: Links, _ now: Date) -> [AttentionView] {
        let items = queues(live, links, now) + names(live, links, now) + workers(live, links, now)
        guard items.count > mostItems else { return items }
        return Array(items.prefix(mostItems))
    }

    private static func queues(_ live: LiveView, _ links: Links, _ now: Date) -> [AttentionView] {
        let consumersOf = PageComposer.consumers(live.picture.liveWorkers(at: now))
        return live.queues.flatMap { queue -> [AttentionView] in
            var items: [AttentionView] = []
            let consumers = consumersOf[queue.name] ?? []
            let waits = queue.oldestWaiting.map { now.timeIntervalSince($0) }
            let oldest = waits.map { "the oldest has waited \(Format.span($0).text)" }
            if live.pausedQueues.contains(queue.name), queue.waiting > 0 {
                items.append(
                    AttentionView(
                        kind: "waiting", subject: queue.name,
                        sentence:
                            "is paused, and \(Format.count(queue.waiting, "job")) \(queue.waiting == 1 ? "waits" : "wait").",
                        link: links.queue(queue.name), linkText: "Queue"))
            } else if queue.waiting > 0, consumers.isEmpty {
                items.append(
                    AttentionView(
                        kind: "waiting", subject: queue.name,
                        sentence:
                            "has no worker. \(Format.count(queue.waiting, "job")) \(queue.waiting == 1 ? "waits" : "wait")"
                            + (oldest.map { "; " + $0 } ?? "") + ".",
                        link: links.queue(queue.name), linkText: "Queue"))
            } else if let waits, waits > longWait {
                let full = consumers.allSatisfy { worker in worker.slots.map { worker.active >= $0 } ?? false }
                items.append(
                    AttentionView(
                        kind: "failed", subject: queue.name,
                        sentence: "keeps jobs waiting: the oldest for \(Format.span(waits).text), with "
                            + Format.count(consumers.count, "worker")
                            + (full ? consumers.count == 1 ? ", which is full." : ", all full." : "."),
                        link: links.queue(queue.name), linkText: "Why"))
            }
            if queue.failed > 0 {
                items.append(
                    AttentionView(
                        kind: "failed", subject: queue.name,
                        sentence: "has \(Format.count(queue.failed, "dead letter")).",
                        link: links.path("/dead-letters"), linkText: "Dead letters"))
            }
            return items
        }
    }

    private static func names(_ live: LiveView, _ links: Links, _ now: Date) -> [AttentionView] {
        live.tallies.series(.name).compactMap { series -> AttentionView? in
            let sum = live.tallies.sum(series, seconds: 900, at: now)
            guard sum.failed >= 3, Double(sum.failed) > manyFailures * Double(sum.ended) else { return nil }
            return AttentionView(
                kind: "failed", subject: series.label,
                sentence: "fails: \(Format.count(sum.failed)) of \(Format.count(sum.ended, "job")) in the last 15 min ("
                    + Format.share(sum.failed, of: sum.ended).text + ").",
                link: links.jobs("state:failed since:15m " + Links.term("name", series.label)), linkText: "Failures")
        }
    }

    private static func workers(_ live: LiveView, _ links: Links, _ now: Date) -> [AttentionView] {
        live.picture.workers.values.sorted { $0.name < $1.name }.compactMap { worker -> AttentionView? in
            if !worker.isAlive(at: now), !worker.hasLeft {
                return AttentionView(
                    kind: "lost", subject: worker.name,
                    sentence:
                        "stopped sending heartbeats \(Format.relative(worker.beatAt ?? worker.heardAt, to: now)).",
                    link: links.worker(worker.name), linkText: "Worker")
            }
            guard worker.restarts >= 3, now.timeIntervalSince(worker.startedAt ?? .distantPast) < 300 else {
                return nil
            }
            return AttentionView(
                kind: "retrying", subject: worker.name,
                sentence: "has started again \(Format.count(worker.restarts, "time")), last "
                    + "\(Format.relative(worker.startedAt ?? now, to: now)).",
                link: links.worker(worker.name), linkText: "Worker")
        }
    }
}
