public import Hoist
import RESP

/// The places in which jobs lie, in the order in which pages go through them.
private struct Place: Sendable {
    enum Kind: Sendable {
        case held(WorkerID)
        case list(queue: String)
        /// A sorted set of ids.
        case kept(queue: String)
        case results
    }

    var kind: Kind
    /// Sorts the places, and tells them apart in a cursor.
    var name: String
    /// The key, where it has one.
    var key = ""
}

/// How far a place has been read.
private struct Progress {
    /// A number of elements.
    var count: Int64 = 0
    /// The server's own cursor of results; their count begins anew with it.
    var scan = "0"

    /// The position as a cursor: both numbers and the name of the place, with spaces between.
    func cursor(in place: Place) -> JobCursor { JobCursor("\(count) \(scan) \(place.name)") }

    static func read(_ cursor: JobCursor) -> (place: String, progress: Progress)? {
        let parts = cursor.text.split(separator: " ", maxSplits: 2).map(String.init)
        guard parts.count == 3, let count = Int64(parts[0]), count >= 0, UInt64(parts[1]) != nil else { return nil }
        return (parts[2], Progress(count: count, scan: parts[1]))
    }
}

extension RedisBackend {
    public func page(_ filter: JobFilter, after cursor: JobCursor?) async throws -> JobPage {
        if let ids = filter.ids { return try await page(ids, filter, after: cursor) }
        var places = try await places(filter)[...]
        var progress = Progress()
        if let cursor {
            guard let position = Progress.read(cursor) else { throw BackendError(strange: cursor) }
            // A place that is gone meanwhile is skipped.
            places = places.drop { $0.name < position.place }
            if places.first?.name == position.place { progress = position.progress }
        }
        var found: [JobRecord] = []
        // Reads on until the page is full, but not for ever where little fits the filter.
        var reads = 0
        while let place = places.first {
            let (records, next) = try await read(place, from: progress, filter.pageSize - found.count)
            reads += 1
            found += records.filter(filter.matches)
            if let next { progress = next } else { (places, progress) = (places.dropFirst(), Progress()) }
            let isFull = found.count >= filter.pageSize || reads >= 100
            if isFull, let place = places.first {
                return JobPage(jobs: found, next: progress.cursor(in: place))
            }
        }
        return JobPage(jobs: found, next: nil)
    }

    /// A page of jobs that are named, in the order of their ids.
    private func page(_ ids: [JobID], _ filter: JobFilter, after cursor: JobCursor?) async throws -> JobPage {
        var begin = 0
        if let cursor {
            guard let count = Int(cursor.text), ids.indices.contains(count) else { throw BackendError(strange: cursor) }
            begin = count
        }
        let end = min(ids.count, begin + filter.pageSize)
        var found: [JobRecord] = []
        for id in ids[begin..<end] {
            if let record = try await record(of: id), filter.matches(record) { found.append(record) }
        }
        return JobPage(jobs: found, next: end < ids.count ? JobCursor("\(end)") : nil)
    }

    private func places(_ filter: JobFilter) async throws -> [Place] {
        let states = filter.states ?? Set(JobState.allCases)
        func wants(_ some: JobState...) -> Bool { !states.isDisjoint(with: some) }
        var places: [Place] = []
        if wants(.running) {
            places += try await holders().map { worker in
                Place(kind: .held(worker), name: "1held " + worker, key: keys.own + "held:" + worker + ":info")
            }
        }
        let queues = if let queue = filter.queue { [queue] } else { try await knownQueues() }
        for queue in queues {
            if wants(.waiting) {
                places += try await allLists(queue).map { list in
                    Place(kind: .list(queue: queue), name: "2list \(queue) \(list)", key: list)
                }
            }
            var kinds = wants(.scheduled, .retrying, .waiting) ? ["delayed"] : []
            if wants(.failed) { kinds.append("dead") }
            if wants(.cancelled, .expired) { kinds.append("stopped") }
            places += kinds.map { kind in
                Place(kind: .kept(queue: queue), name: "3\(kind) \(queue)", key: keys.own + kind + ":" + queue)
            }
        }
        if wants(.succeeded) { places.append(Place(kind: .results, name: "4results")) }
        return places.sorted { $0.name < $1.name }
    }

    /// Reads a part of a place, at most `count` jobs of it.
    /// - Returns: the jobs, and where to read on; nil at the end of the place.
    private func read(
        _ place: Place, from progress: Progress, _ count: Int
    ) async throws -> (records: [JobRecord], next: Progress?) {
        let offset = progress.count
        switch place.kind {
        case .held:
            let ids =
                try await send(RESPCommand("HKEYS", [.text(place.key)]), doing: "list running jobs")
                .elements?.compactMap(\.text).sorted() ?? []
            return try await records(of: Array(ids.dropFirst(Int(clamping: offset))), offset, count)
        case .list(let queue):
            let slice =
                try await send(
                    RESPCommand("LRANGE", [.text(place.key), .integer(offset), .integer(offset + Int64(count) - 1)]),
                    doing: "list the queue \(queue)"
                ).elements ?? []
            let records = slice.compactMap { waitingJob($0.bytes, queue) }
            return (records, slice.count == count ? Progress(count: offset + Int64(count)) : nil)
        case .kept(let queue):
            let ids =
                try await send(
                    RESPCommand(
                        "ZRANGE", [.text(place.key), .integer(offset), .integer(offset + Int64(count)), "REV"]),
                    doing: "list jobs of the queue \(queue)"
                ).elements?.compactMap(\.text) ?? []
            return try await records(of: ids, offset, count)
        case .results:
            // A step of the server's holds what it holds; what does not fit the page is read again for the next one.
            let (all, cursor) = try await results(from: progress.scan)
            let left = all.sorted { $0.id < $1.id }.dropFirst(Int(clamping: offset))
            if left.count > count {
                return (Array(left.prefix(count)), Progress(count: offset + Int64(count), scan: progress.scan))
            }
            return (Array(left), cursor == "0" ? nil : Progress(scan: cursor))
        }
    }

    /// - Parameter ids: those from `offset` on, one more than `count` where there are more.
    private func records(
        of ids: [JobID], _ offset: Int64, _ count: Int
    ) async throws -> (records: [JobRecord], next: Progress?) {
        var records: [JobRecord] = []
        for id in ids.prefix(count) { if let record = try await record(of: id) { records.append(record) } }
        return (records, ids.count > count ? Progress(count: offset + Int64(count)) : nil)
    }

    /// The jobs that have succeeded, from a cursor of the server's on.
    func results(from cursor: String) async throws -> (records: [JobRecord], cursor: String) {
        let scan = RESPCommand("SCAN", [.text(cursor), "MATCH", .text(keys.resultPattern), "COUNT", 1000])
        let page = try await sendToResults([scan]).first?.elements ?? []
        let found = page.last?.elements?.compactMap(\.text) ?? []
        let values = try await sendToResults(found.map { RESPCommand("GET", [.text($0)]) })
        let records = zip(found, values).compactMap { key, value -> JobRecord? in
            guard let result = value.bytes.flatMap(StoredResult.init), result.state == .succeeded else { return nil }
            var location = Location(isCancelRequested: false)
            location.result = result
            return record(String(key.dropFirst(keys.results.count)), location)
        }
        return (records, page.first?.text ?? "0")
    }

    /// Of each place the length, which is exact, and of its first thousand jobs the names and states, whose shares hold
    /// for the whole place where it is longer.
    public func counts() async throws -> [JobCount] {
        let places = try await places(JobFilter(states: Set(JobState.allCases).subtracting([.succeeded])))
        let sample = 1000
        var counts: [JobCount: JobCount] = [:]
        for place in places {
            let (length, kinds) = try await kinds(in: place, sample)
            guard !kinds.isEmpty else { continue }
            let share = Double(length) / Double(kinds.count)
            for (kind, count) in Dictionary(grouping: kinds, by: \.self).mapValues(\.count) {
                // One count for all places of a kind; an estimate in one of them makes all an estimate.
                let isEstimate = length > sample
                counts[kind, default: kind].count += isEstimate ? Int((Double(count) * share).rounded()) : count
                if isEstimate { counts[kind]?.isEstimate = true }
            }
        }
        return Array(counts.values)
    }

    /// What kind the first jobs of a place are, each with a count of 0.
    private func kinds(in place: Place, _ sample: Int) async throws -> (length: Int, kinds: [JobCount]) {
        let last = Int64(sample - 1)
        switch place.kind {
        case .held:
            let held = try await send(RESPCommand("HVALS", [.text(place.key)]), doing: "count running jobs")
            let jobs = (held.elements ?? []).compactMap { $0.bytes.flatMap { HeldJob($0, envelope: []) } }
            let kinds = jobs.compactMap { job in
                job.record.map {
                    JobCount(queue: keys.queue(ofList: job.list), name: $0.name, state: .running, count: 0)
                }
            }
            return (kinds.count, kinds)
        case .list(let queue):
            let found = try await pipeline(
                [
                    RESPCommand("LLEN", [.text(place.key)]),
                    RESPCommand("LRANGE", [.text(place.key), 0, .integer(last)]),
                ],
                doing: "count the queue \(queue)")
            let kinds = (found[1].elements ?? []).map { element in
                let message = element.bytes.flatMap { try? Message(envelope: $0) }
                return JobCount(queue: queue, name: message?.jobName ?? "(unreadable)", state: .waiting, count: 0)
            }
            return (Int(found[0].integer ?? 0), kinds)
        case .kept(let queue):
            let found = try await pipeline(
                [
                    RESPCommand("ZCARD", [.text(place.key)]),
                    RESPCommand("ZRANGE", [.text(place.key), 0, .integer(last), "REV"]),
                ], doing: "count the queue \(queue)")
            let ids = (found[1].elements ?? []).compactMap(\.text)
            guard !ids.isEmpty else { return (0, []) }
            let stored = try await send(
                RESPCommand("MGET", ids.map { .text(keys.own + "job:" + $0) }), doing: "count the queue \(queue)")
            let kinds = (stored.elements ?? []).compactMap { $0.bytes.flatMap(StoredJob.init) }.map { job in
                JobCount(queue: queue, name: job.name, state: job.state, count: 0)
            }
            return (Int(found[0].integer ?? 0), kinds)
        case .results: return (0, [])
        }
    }
}
