import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// Composes pages of one backend from what is known of it.
struct PageComposer: Sendable {
    let collector: Collector
    let store: HistoryStore
    let renderer: PageRenderer
    let links: Links
    let isReadOnly: Bool

    /// The longest that a page waits for a backend, before it shows what it has.
    static let patience = Duration.seconds(1)

    var now: Date { collector.clock.now }

    /// Whether events are heard, and how many.
    var sign: String {
        collector.view { live in
            guard live.connectedSince != nil, live.trouble == nil else { return "no events" }
            return "live, \(Format.decimal(live.eventRate, digits: live.eventRate < 10 ? 1 : 0)) events/s"
        }
    }

    func content(_ address: PageAddress) async throws -> PageContent {
        switch address {
        case .overview: try await overview()
        case .jobs(let search, let before): try await jobs(search, before: before)
        case .job(let id): try await job(id)
        case .queues:
            PageContent(title: "Queues", section: "queues", fragments: [queues(limit: nil)])
        case .queue(let name): try await queue(name)
        case .workers: PageContent(title: "Workers", section: "workers", fragments: [workers()])
        case .worker(let name): worker(name)
        case .scheduled: try await scheduled()
        case .failures: try await failures()
        case .names: PageContent(title: "Job names", section: "names", fragments: [names(limit: nil)])
        case .audit: try await audit()
        }
    }

    /// Waits for a backend, but not for long.
    /// - Returns: nil when it did not answer in time, or failed.
    func soon<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) async -> T? {
        await withTaskGroup(of: T?.self) { group in
            group.addTask { try? await body() }
            group.addTask {
                try? await Task.sleep(for: Self.patience)
                return nil
            }
            let first = await group.next() ?? nil
            group.cancelAll()
            return first
        }
    }

    func message(_ id: String, title: String, _ sentence: String, command: String? = nil) -> Fragment {
        struct View {
            var title: String
            var sentence: String
            var command: String?
        }
        return renderer.fragment(id, "message", View(title: title, sentence: sentence, command: command))
    }

    // MARK: - Overview

    private func overview() async throws -> PageContent {
        let charts = try await charts(.all, queue: nil)
        let latest = try await store.page(JobPageQuery(backend: collector.number, limit: 10), at: now)
        return PageContent(
            title: "Overview", section: "overview",
            fragments: [
                attention(), charts, queues(limit: 8), names(limit: 8),
                list(
                    "jobs", title: "Jobs", summary: "the newest", latest.jobs,
                    empty: "No job has been heard of yet. Jobs appear here as soon as a worker has one.",
                    allLink: links.jobs("")),
            ], hasRange: true)
    }

    static let workerCommand = "myapp worker --backend \"$HOIST_BACKEND\"      # or: celery -A proj worker -E"

    private func attention() -> Fragment {
        struct View {
            var items: [AttentionView]
            var hasItems: Bool
            var isCalm: Bool
            var isLonely: Bool
            let command = PageComposer.workerCommand
        }
        let now = now
        var isLonely = false
        let items = collector.view { live -> [AttentionView] in
            isLonely = live.picture.workers.isEmpty
            return Attention.items(live, links, now)
        }
        return renderer.fragment(
            "attention", "attention",
            View(
                items: items, hasItems: !items.isEmpty, isCalm: items.isEmpty && !isLonely,
                isLonely: isLonely && items.isEmpty))
    }

    // MARK: - Lists of jobs

    func list(
        _ id: String, title: String, summary: String, _ jobs: [HistoryJob], empty: String, allLink: String? = nil,
        mistake: String? = nil, firstLink: String? = nil, nextLink: String? = nil
    ) -> Fragment {
        let now = now
        return list(
            id, title: title, summary: summary, rows: jobs.map { JobRowView($0, links, now) }, empty: empty,
            allLink: allLink, mistake: mistake, firstLink: firstLink, nextLink: nextLink)
    }

    func list(
        _ id: String, title: String, summary: String, rows: [JobRowView], empty: String, allLink: String? = nil,
        mistake: String? = nil, firstLink: String? = nil, nextLink: String? = nil
    ) -> Fragment {
        struct View {
            var title: String
            var summary: String
            var rows: [JobRowView]
            var hasRows: Bool
            var empty: String
            var allLink: String?
            var mistake: String?
            var hasPages: Bool
            var firstLink: String?
            var nextLink: String?
        }
        return renderer.fragment(
            id, "jobs",
            View(
                title: title, summary: summary, rows: rows, hasRows: !rows.isEmpty, empty: empty, allLink: allLink,
                mistake: mistake, hasPages: firstLink != nil || nextLink != nil, firstLink: firstLink,
                nextLink: nextLink))
    }

    private func jobs(_ text: String, before: Int64?) async throws -> PageContent {
        var fragment: Fragment
        do {
            let query = JobPageQuery(backend: collector.number, search: try JobSearch(text), before: before)
            let (now, first) = (now, links.jobs(text))
            let result = try await store.page(query, at: now)
            let count = try await store.count(query, at: now)
            let next = result.next.map {
                links.path("/jobs", (text.isEmpty ? [] : [("q", text)]) + [("before", String($0))])
            }
            fragment = list(
                "jobs", title: before == nil ? "Newest" : "Older",
                summary: "\(Format.bounded(count)) \(text.isEmpty ? "in the history" : "found")", result.jobs,
                empty: text.isEmpty
                    ? "No job has been heard of yet. Jobs appear here as soon as a worker has one."
                    : "No job in the history fits this search.",
                firstLink: before == nil ? nil : first, nextLink: next)
        } catch let mistake as JobSearch.Mistake {
            fragment = list(
                "jobs", title: "Jobs", summary: "", rows: [], empty: "Nothing was searched for.",
                mistake: "At character \(mistake.place + 1): \(mistake.message).")
        } catch let error as BackendError where error.code == .busy {
            fragment = list(
                "jobs", title: "Jobs", summary: "", rows: [], empty: "Nothing was found in time.",
                mistake: error.message)
        }
        return PageContent(title: "Jobs", section: "jobs", fragments: [fragment], search: text)
    }

    private func scheduled() async throws -> PageContent {
        let backend = collector.backend
        let states: Set<JobState> = [.scheduled, .retrying]
        let records = await soon { try await backend.page(JobFilter(states: states, limit: 200), after: nil).jobs }
        let now = now
        let fragment: Fragment
        if let records {
            let sorted = records.sorted { ($0.dueAt ?? .distantFuture, $0.id) < ($1.dueAt ?? .distantFuture, $1.id) }
            fragment = list(
                "jobs", title: "By due time", summary: "the nearest first; 200 at most",
                rows: sorted.map { JobRowView($0, links, now) }, empty: "No job of this backend is due later.")
        } else {
            var search = JobSearch()
            search.wishes = [.init(term: .state(.scheduled))]
            let query = JobPageQuery(backend: collector.number, search: search, limit: 200)
            fragment = list(
                "jobs", title: "As events told",
                summary: "the backend lists no jobs, or did not answer within a second",
                try await store.page(query, at: now).jobs, empty: "No job is known to be due later.")
        }
        return PageContent(title: "Scheduled and retrying", section: "scheduled", fragments: [fragment])
    }

    private func failures() async throws -> PageContent {
        struct Row {
            var key: String
            var name: String
            var link: String
            var error: String
            var count: String
            var moment: Moment?
        }
        struct View {
            var rows: [Row]
            var hasRows: Bool
        }
        let now = now
        let groups = try await store.failures(backend: collector.number, limit: 200)
        let rows = groups.map { group in
            Row(
                key: group.name + " " + group.error, name: group.name.isEmpty ? "unknown" : group.name,
                link: links.jobs(
                    group.name.isEmpty ? "state:failed" : "state:failed " + Links.term("name", group.name)),
                error: group.error, count: Format.count(group.count), moment: Moment(group.last, now))
        }
        return PageContent(
            title: "Dead letters", section: "failures",
            fragments: [renderer.fragment("failures", "failures", View(rows: rows, hasRows: !rows.isEmpty))])
    }

    private func audit() async throws -> PageContent {
        struct Row {
            var action: String
            var target: String
            var author: String
            var count: String
            var result: String
            var moment: Moment
        }
        struct View {
            var rows: [Row]
            var hasRows: Bool
        }
        let now = now
        let rows = try await store.audit(limit: 200).map { entry in
            Row(
                action: entry.action, target: entry.target, author: entry.author, count: Format.count(entry.count),
                result: entry.result, moment: Moment(entry.at, now))
        }
        return PageContent(
            title: "Audit log", section: "audit",
            fragments: [renderer.fragment("audit", "audit", View(rows: rows, hasRows: !rows.isEmpty))])
    }
}
