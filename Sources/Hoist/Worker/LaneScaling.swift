#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Looks at the lanes that have a range of slots, as long as the worker runs.
struct LaneScaling: Sendable {
    let engine: WorkerEngine
    let backend: Backend
    let policy: Autoscaling

    /// A lane as the worker has it now.
    struct Lane: Sendable {
        var slots: Int
        var used: Int
    }

    func run() async {
        var ranges: [LaneKind: ClosedRange<Int>] = [:]
        var scalers: [LaneKind: LaneScaler] = [:]
        while !Task.isCancelled {
            let mark = engine.rangesBell.mark
            let wanted = await engine.ranges
            for (kind, range) in wanted where ranges[kind] != range { scalers[kind] = LaneScaler(range, policy) }
            ranges = wanted
            guard !scalers.isEmpty else {
                await engine.rangesBell.wait(after: mark, for: nil, clock: backend.clock)
                continue
            }
            await backend.clock.sleep(for: policy.interval)
            guard !Task.isCancelled, let (before, queues) = await engine.lanesToScale() else { return }
            let isAnyFull = scalers.keys.contains { before[$0].map { $0.used >= $0.slots } ?? false }
            let backlog = isAnyFull ? await self.backlog(of: queues) : LaneScaler.Backlog(waiting: 0, oldestWait: 0)
            // A person may have given a lane another size meanwhile.
            guard let (lanes, _) = await engine.lanesToScale() else { return }
            for kind in scalers.keys {
                guard let lane = lanes[kind] else { continue }
                let wanted = scalers[kind]?.slots(
                    used: lane.used, of: lane.slots, backlog: backlog, now: backend.clock.uptime)
                if let wanted, wanted != lane.slots { await engine.resize(kind, to: wanted) }
            }
        }
    }

    /// What waits in the queues. Where the backend cannot tell, a lane that is full has enough to do.
    private func backlog(of consumed: Set<String>) async -> LaneScaler.Backlog {
        // A worker that stops does not wait for the answer.
        let asked = backend.directory.map { directory in
            { @Sendable in try await directory.queues() }
        }
        guard let asked, let queues = try? await withDeadline(.seconds(30), clock: SystemJobClock(), asked) else {
            return LaneScaler.Backlog(waiting: .max, oldestWait: 0)
        }
        let now = backend.clock.now
        var sum = LaneScaler.Backlog(waiting: 0, oldestWait: 0)
        for queue in queues where consumed.contains(queue.name) {
            sum.waiting += queue.waiting
            let wait =
                queue.oldestWaiting.map { Duration(boundedSeconds: now.timeIntervalSince($0)).inMicroseconds } ?? 0
            sum.oldestWait = max(sum.oldestWait, wait)
        }
        return sum
    }
}
