import HTTPTypes
import Hoist
import HoistMonitor
import Hummingbird
import NIOCore

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What pages show, for programs: JSON with dates as ISO 8601 text in UTC and durations in seconds.
enum DashboardAPI {
    static let routes: [DashboardRoute] = [
        get("api/v1/jobs") { try await $0.apiJobs($1) },
        get("api/v1/jobs/:id") { try await $0.apiJob($1) },
        get("api/v1/queues") { try $0.apiQueues($1) },
        get("api/v1/workers") { try $0.apiWorkers($1) },
        get("metrics", right: .metrics) { dashboard, _ in
            let text = await DashboardMetrics(collectors: dashboard.collectors, store: dashboard.store).text()
            return Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                body: ResponseBody(
                    byteBuffer: ByteBuffer(string: text)))
        },
        get("live", right: nil) { _, _ in json(["status": "live"]) },
        get("ready", right: nil) { dashboard, _ in
            let isReady = dashboard.collectors.allSatisfy { $0.view { $0.queuesReadAt != nil && $0.trouble == nil } }
            return json(
                ["status": isReady ? "ready" : "a backend does not answer"],
                status: isReady ? .ok : .serviceUnavailable)
        },
    ]

    private static func get(
        _ path: String, right: DashboardRight? = .read,
        _ handler: @escaping @Sendable (Dashboard, Visit) async throws -> Response
    ) -> DashboardRoute {
        DashboardRoute(method: .get, path: path, right: right, audience: .programs, handler: handler)
    }

    static func json(_ value: WireValue, status: HTTPResponse.Status = .ok) -> Response {
        Response(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: JSONText.shown(value))))
    }

    static func date(_ date: Date?) -> WireValue { date.map { .string(WireTimestamp.string(from: $0)) } ?? .null }
    static func text(_ text: String?) -> WireValue { text.map { .string($0) } ?? .null }
    static func number(_ number: Double?) -> WireValue { number.map { .double($0) } ?? .null }

    static func value(_ job: HistoryJob) -> WireValue {
        [
            "id": .string(job.id), "name": text(job.name), "state": .string(job.state.word), "queue": text(job.queue),
            "worker": text(job.worker), "lane": text(job.lane), "attempt": .integer(Int64(job.retries + 1)),
            "sent_at": date(job.sentAt), "received_at": date(job.receivedAt), "started_at": date(job.startedAt),
            "ended_at": date(job.endedAt), "due_at": date(job.due), "expires_at": date(job.expires),
            "run_time": number(job.runTime), "arguments": text(job.positionalText),
            "keyword_arguments": text(job.keywordText), "result": text(job.result), "error": text(job.error),
            "traceback": text(job.traceback), "root_id": text(job.rootID), "parent_id": text(job.parentID),
        ]
    }
}

extension Dashboard {
    fileprivate func apiJobs(_ visit: Visit) async throws -> Response {
        let query = visit.query
        let collector = try collector(query)
        let search: JobSearch
        do {
            search = try JobSearch(query["q"] ?? "")
        } catch let mistake {
            throw Problem(.badRequest, "q, at character \(mistake.place + 1): \(mistake.message)")
        }
        var page = JobPageQuery(backend: collector.number, search: search)
        if let text = query["limit"] {
            guard let limit = Int(text), (1...JobPageQuery.largestPage).contains(limit) else {
                throw Problem(.badRequest, "limit is a number from 1 to 200")
            }
            page.limit = limit
        }
        if let text = query["before"] {
            guard let before = Int64(text), before > 0 else {
                throw Problem(.badRequest, "before is the member next of the page before")
            }
            page.before = before
        }
        let result: JobPageQuery.Result
        do {
            result = try await store.page(page, at: collector.clock.now)
        } catch let error as BackendError where error.code == .busy {
            throw Problem(.serviceUnavailable, error.message)
        }
        return DashboardAPI.json([
            "jobs": .array(result.jobs.map(DashboardAPI.value)), "next": result.next.map { .integer($0) } ?? .null,
        ])
    }

    fileprivate func apiJob(_ visit: Visit) async throws -> Response {
        let collector = try collector(visit.query)
        let id = visit.identifier ?? ""
        guard let (job, attempts) = try await store.job(id, backend: collector.number) else {
            throw Problem(.notFound, "The history knows no job of this id.")
        }
        guard case .object(var value) = DashboardAPI.value(job) else { return DashboardAPI.json(.null) }
        value["attempts"] = .array(
            attempts.map { attempt in
                [
                    "number": .integer(Int64(attempt.number)), "worker": DashboardAPI.text(attempt.worker),
                    "started_at": DashboardAPI.date(attempt.startedAt), "ended_at": DashboardAPI.date(attempt.endedAt),
                    "state": .string((attempt.state ?? .running).word), "error": DashboardAPI.text(attempt.error),
                ]
            })
        return DashboardAPI.json(.object(value))
    }

    fileprivate func apiQueues(_ visit: Visit) throws -> Response {
        let collector = try collector(visit.query)
        let now = collector.clock.now
        return collector.view { live in
            DashboardAPI.json([
                "queues": .array(
                    live.queues.map { queue in
                        [
                            "name": .string(queue.name), "waiting": .integer(Int64(queue.waiting)),
                            "scheduled": .integer(Int64(queue.scheduled)), "running": .integer(Int64(queue.running)),
                            "failed": .integer(Int64(queue.failed)),
                            "oldest_waiting": DashboardAPI.number(
                                queue.oldestAge(at: now)),
                            "is_paused": .bool(live.pausedQueues.contains(queue.name)),
                        ]
                    }), "as_of": DashboardAPI.date(live.queuesReadAt), "trouble": DashboardAPI.text(live.trouble),
            ])
        }
    }

    fileprivate func apiWorkers(_ visit: Visit) throws -> Response {
        let collector = try collector(visit.query)
        let now = collector.clock.now
        return collector.view { live in
            DashboardAPI.json([
                "workers": .array(
                    live.picture.workers.values.sorted { $0.name < $1.name }.map { worker in
                        [
                            "name": .string(worker.name), "is_alive": .bool(worker.isAlive(at: now)),
                            "has_left": .bool(worker.hasLeft), "software": DashboardAPI.text(worker.software),
                            "version": DashboardAPI.text(worker.version),
                            "slots": worker.slots.map { .integer(Int64($0)) } ?? .null,
                            "active": .integer(Int64(worker.active)), "processed": .integer(Int64(worker.processed)),
                            "queues": .array((worker.queues ?? []).map { .string($0) }),
                            "heard_at": DashboardAPI.date(worker.heardAt),
                        ]
                    })
            ])
        }
    }
}
