import Timetables

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Makes the messages of runs.
struct ScheduleMessages: Sendable {
    let client: JobClient
    /// Of schedules whose jobs are made for each tick, by the id of the schedule.
    var makers: [String: @Sendable (Tick) throws -> Schedule.Blueprint] = [:]

    /// What is stored of the messages of a schedule.
    func template(of schedule: Schedule) throws -> (ScheduleState.Template?, jobName: String, queue: String?) {
        switch schedule.action {
        case .made(let name, _): return (nil, name, nil)
        case .fixed(let blueprint):
            let now = client.backend.clock.now
            var message = try client.message(for: blueprint(), id: "template", at: now)
            // Each run has its own. Without them the same schedule is stored as the same bytes.
            (message.headers.origin, message.headers.hoist.enqueuedAt) = (nil, nil)
            guard client.configuration.sealing == nil else {
                throw ScheduleError(
                    schedule: schedule.id,
                    message:
                        "its arguments would be stored unsealed; have the job made for each tick, in code that seals")
            }
            func distance(_ date: Date?) -> Int64? {
                date.map { $0.microsecondsSinceEpoch - now.microsecondsSinceEpoch }
            }
            let template = ScheduleState.Template(
                envelope: String(decoding: message.encodedEnvelope(), as: UTF8.self),
                delay: distance(message.headers.eta), expiresAfter: distance(message.headers.expires))
            return (template, message.jobName, message.queue)
        }
    }

    /// The message of a run.
    /// - Parameter now: the clock of the backend.
    func message(of tick: Tick, _ state: ScheduleState, now: Int64) throws -> Message {
        var message: Message
        let id = tick.jobID
        if let template = state.template {
            message = try Message(envelope: Array(template.envelope.utf8))
            message.headers.id = id
            message.headers.rootID = id
            message.properties.correlationID = id
            message.properties.deliveryTag = id
            message.headers.eta = template.delay.map { Date(microsecondsSinceEpoch: now + $0) }
            message.headers.expires = template.expiresAfter.map { Date(microsecondsSinceEpoch: now + $0) }
            message.headers.hoist.enqueuedAt = Date(microsecondsSinceEpoch: now)
            message.headers.origin = ProcessIdentity.name
        } else if let make = makers[tick.schedule] {
            do {
                message = try client.message(for: make(tick), id: id, at: Date(microsecondsSinceEpoch: now))
            } catch let error where !(error is CancellationError) {
                throw ScheduleError(schedule: tick.schedule, message: "its job cannot be made: \(error)")
            }
        } else {
            throw ScheduleError(
                schedule: tick.schedule, message: "its job is made by code that this program does not have")
        }
        if let later = try jitter(tick, state) {
            message.headers.eta = max(message.headers.eta ?? later, later)
        }
        message.headers.hoist.tick = tick
        message.headers.custom[Tick.beatHeader] = true
        // What is stored may be anybody's: only what this program has made is sealed by it.
        if state.template == nil, let sealing = client.configuration.sealing { try message.seal(with: sealing) }
        if let limit = client.configuration.compressesAbove, message.body.count > limit { message.compressBody() }
        return message
    }

    /// When a run starts that the jitter moves: every program finds the same time, which is before the next run.
    private func jitter(_ tick: Tick, _ state: ScheduleState) throws -> Date? {
        guard state.jitter > 0, tick.reason == .onTime else { return nil }
        let due = tick.due.microsecondsSinceEpoch
        let room = try state.due(after: due).map { $0 - due - 1 } ?? state.jitter
        let most = min(state.jitter, room)
        guard most > 0 else { return nil }
        return Date(microsecondsSinceEpoch: due + Int64(tick.jobID.utf8.stableHash % UInt64(most)))
    }
}
