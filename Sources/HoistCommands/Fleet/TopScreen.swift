import Hoist
import HoistMonitor

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// What `hoist top` shows, and what its keys do. Pure: lines of text come out, keys and the time go in.
struct TopScreen {
    enum Focus: Sendable { case running, workers, failures }
    enum Sort: String, Sendable, CaseIterable { case age, name, worker }

    /// What the program is to do after a key.
    enum Effect: Sendable, Equatable {
        case none, quit
        case cancel(JobID)
    }

    var picture = FleetPicture(limits: .init(jobs: 20_000, bytes: 64 << 20))
    var queues: [QueueStatistics] = []
    /// Ends of attempts a second, and when they were counted.
    private var rates: [String: Double] = [:]
    private var counted: (at: JobDate, counts: [String: MonitoredCount])?
    private(set) var focus = Focus.running
    private(set) var sort = Sort.age
    private(set) var filter = ""
    private var isTyping = false
    private var selected = 0
    /// The job that is shown as a whole.
    private var opened: JobID?
    private var openedWorker: String?
    /// The job whose cancellation is to be confirmed.
    private var confirming: JobID?
    private var note = ""

    // MARK: - Input

    mutating func say(_ text: String) { note = text }

    /// Works out how many jobs ended in a second since the last call.
    mutating func measure(at now: JobDate) {
        if let counted {
            let seconds = max(0.001, now.timeIntervalSince(counted.at))
            rates = [:]
            for (name, count) in picture.counts {
                let before = counted.counts[name] ?? MonitoredCount()
                rates["succeeded", default: 0] += Double(count.succeeded - before.succeeded) / seconds
                rates["failed", default: 0] += Double(count.failed - before.failed) / seconds
                rates["retried", default: 0] += Double(count.retried - before.retried) / seconds
            }
        }
        counted = (now, picture.counts)
    }

    mutating func press(_ key: TopKey, at now: JobDate) -> Effect {
        note = ""
        if let id = confirming {
            confirming = nil
            if case .character("y") = key { return .cancel(id) }
            note = "not cancelled"
            return .none
        }
        if isTyping {
            switch key {
            case .enter, .escape: isTyping = false
            case .backspace: filter = String(filter.dropLast())
            case .character(let character): if filter.count < 100 { filter.append(character) }
            case .up, .down: break
            }
            selected = 0
            return .none
        }
        switch key {
        case .character("q"): return .quit
        case .up: selected = max(0, selected - 1)
        case .down: selected += 1
        case .character("r"): (focus, selected) = (.running, 0)
        case .character("w"): (focus, selected) = (.workers, 0)
        case .character("f"): (focus, selected) = (.failures, 0)
        case .character("/"): isTyping = true
        case .character("s"):
            let all = Sort.allCases
            sort = all[((all.firstIndex(of: sort) ?? 0) + 1) % all.count]
        case .enter:
            if focus == .workers {
                openedWorker = workers(now).dropFirst(selected).first?.name
            } else {
                opened = listed(now).dropFirst(selected).first?.id
            }
        case .escape, .backspace:
            (opened, openedWorker, filter) = (nil, nil, opened == nil && openedWorker == nil ? "" : filter)
        case .character("c"):
            confirming = opened ?? (focus == .running ? listed(now).dropFirst(selected).first?.id : nil)
        case .character: break
        }
        return .none
    }

    // MARK: - Lists

    private func workers(_ now: JobDate) -> [MonitoredWorker] {
        picture.workers.values.filter { filter.isEmpty || $0.name.contains(filter) }.sorted {
            ($0.isAlive(at: now) ? 0 : 1, $0.name) < ($1.isAlive(at: now) ? 0 : 1, $1.name)
        }
    }

    private func fits(_ job: MonitoredJob) -> Bool {
        filter.isEmpty || job.id.contains(filter) || job.name?.contains(filter) == true
            || job.worker?.contains(filter) == true || job.queue?.contains(filter) == true
    }

    private func listed(_ now: JobDate) -> [MonitoredJob] {
        if focus == .failures {
            return Array(picture.latestJobs.lazy.filter { $0.state == .failed && fits($0) }.prefix(200))
        }
        let jobs = picture.runningJobs(at: now).filter(fits)
        return switch sort {
        case .age: jobs
        case .name: jobs.sorted { ($0.name ?? "", $0.id) < ($1.name ?? "", $1.id) }
        case .worker: jobs.sorted { ($0.worker ?? "", $0.id) < ($1.worker ?? "", $1.id) }
        }
    }

    // MARK: - Output

    /// - Returns: at most `height` lines of at most `width` characters.
    func lines(width: Int, height: Int, at now: JobDate) -> [String] {
        var lines = [head(now)]
        if let opened, let job = picture[job: opened] {
            lines += detail(of: job, now)
        } else if let openedWorker, let worker = picture.workers[openedWorker] {
            lines += detail(of: worker, now)
        } else {
            let most = max(3, (height - 8) / 4)
            lines += ["", "QUEUES"] + table(queueRows(most))
            if focus == .workers {
                lines +=
                    ["", "WORKERS"] + marked(table(workerRows(now, from: selected, max(3, height - lines.count - 6))))
            } else {
                lines += ["", "WORKERS"] + table(workerRows(now, from: 0, most))
                let rows = max(3, height - lines.count - 5)
                lines += ["", focus == .failures ? "FAILURES" : "RUNNING, by \(sort.rawValue)"]
                lines += marked(table(jobRows(now, rows)))
            }
        }
        let foot: String
        if let confirming {
            foot = "cancel \(confirming)? y for yes, any other key for no"
        } else if isTyping {
            foot = "filter: \(filter)_"
        } else {
            foot =
                note.isEmpty
                ? "q quit  r running  f failures  w workers  / filter\(filter.isEmpty ? "" : " (\(filter))")  s sort  enter open  c cancel"
                : note
        }
        let body = lines.prefix(max(0, height - 1)).map { cut($0, width) }
        let blank = [String](repeating: "", count: max(0, height - 1 - body.count))
        return body + blank + [cut(foot, width)]
    }

    /// All text is from outside.
    private func cut(_ text: String, _ width: Int) -> String {
        let safe = TerminalText.line(text)
        return safe.count > width ? String(safe.prefix(max(0, width - 1))) + "…" : safe
    }

    private func head(_ now: JobDate) -> String {
        let live = picture.liveWorkers(at: now)
        let running = picture.runningJobs(at: now).count
        func rate(_ name: String) -> String { "\(((rates[name] ?? 0) * 10).rounded() / 10)" }
        let waiting = queues.reduce(0) { $0 + $1.waiting }
        return "\(live.count) workers, \(running) running, \(waiting) waiting; "
            + "\(rate("succeeded")) done/s, \(rate("failed")) failed/s, \(rate("retried")) retried/s"
    }

    private func table(_ rows: [[String]]) -> [String] {
        guard let first = rows.first, rows.count > 1 else { return ["  none"] }
        let clipped = rows.map { $0.map { Printing.clipped($0, to: 48) } }
        let widths = first.indices.map { column in clipped.map { $0[column].count }.max() ?? 0 }
        return clipped.map { row in
            "  "
                + zip(row, widths).map { cell, width in cell + String(repeating: " ", count: width - cell.count) }
                .joined(separator: "  ")
        }
    }

    /// Marks the first row, which is the one that is selected: the list begins there.
    private func marked(_ lines: [String]) -> [String] {
        guard lines.count > 1 else { return lines }
        var lines = lines
        lines[1] = ">" + lines[1].dropFirst()
        return lines
    }

    private func queueRows(_ most: Int) -> [[String]] {
        let deepest = queues.sorted { ($1.waiting, $0.name) < ($0.waiting, $1.name) }
        return [["QUEUE", "WAITING", "DELAYED", "RUNNING", "FAILED", "OLDEST"]]
            + deepest.prefix(most).map { queue in
                [
                    queue.name, String(queue.waiting), String(queue.scheduled), String(queue.running),
                    String(queue.failed), Printing.age(of: queue.oldestWaiting),
                ]
            }
    }

    private func workerRows(_ now: JobDate, from first: Int, _ most: Int) -> [[String]] {
        let workers = workers(now)
        let shown = workers.dropFirst(min(first, max(0, workers.count - 1))).prefix(most)
        var rows = [["WORKER", "STATE", "LANGUAGE", "RUNNING", "SLOTS", "DONE", "LOAD", "HEARD"]]
        for worker in shown {
            let state = worker.isAlive(at: now) ? "alive" : worker.hasLeft ? "left" : "silent"
            let language = worker.isPython.map { $0 ? "Python" : "Swift" } ?? "-"
            let lanes = worker.lanes.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value.used)/\($0.value.slots)" }
            let slots = lanes.isEmpty ? worker.slots.map(String.init) ?? "-" : lanes.joined(separator: " ")
            let load = worker.loadAverage.first.map { "\($0)" } ?? "-"
            rows.append([
                worker.name, state, language, String(worker.active), slots, String(worker.processed), load,
                Printing.age(of: worker.heardAt, now: now),
            ])
        }
        return rows
    }

    private func jobRows(_ now: JobDate, _ most: Int) -> [[String]] {
        let jobs = listed(now)
        let shown = jobs.dropFirst(min(selected, max(0, jobs.count - 1))).prefix(most)
        if focus == .failures {
            return [["JOB", "NAME", "WORKER", "FAILED", "ERROR"]]
                + shown.map { job in
                    [
                        job.id, job.name ?? "-", job.worker ?? "-", Printing.age(of: job.endedAt, now: now),
                        job.exception ?? "-",
                    ]
                }
        }
        return [["JOB", "NAME", "WORKER", "FOR", "PROGRESS", "ARGUMENTS"]]
            + shown.map { job in
                let progress = job.progress?.fraction.map { "\(Int($0 * 100)) %" }
                return [
                    job.id, job.name ?? "-", job.worker ?? "-", Printing.age(of: job.startedAt, now: now),
                    [progress, job.progress?.message].compactMap { $0 }.joined(separator: " "),
                    [job.positionalText, job.keywordText].compactMap { $0 }.joined(separator: " "),
                ]
            }
    }

    private func detail(of job: MonitoredJob, _ now: JobDate) -> [String] {
        let rows: [(String, String?)] = [
            ("id", job.id), ("name", job.name), ("state", job.state.rawValue), ("worker", job.worker),
            ("queue", job.queue), ("lane", job.lane), ("arguments", job.positionalText), ("", job.keywordText),
            ("retries", String(job.retries)),
            ("received", job.receivedAt.map { Printing.age(of: $0, now: now) + " ago" }),
            ("started", job.startedAt.map { Printing.age(of: $0, now: now) + " ago" }),
            ("ended", job.endedAt.map { Printing.age(of: $0, now: now) + " ago" }),
            ("run time", job.runTime.map { "\($0) s" }), ("result", job.result), ("error", job.exception),
            ("root", job.rootID), ("parent", job.parentID),
        ]
        let facts = rows.compactMap { label, value in value.map { "  " + label.padded(to: 10) + $0 } }
        return ["", "JOB"] + facts + (job.traceback ?? "").split(separator: "\n").map { "  " + $0 }
    }

    private func detail(of worker: MonitoredWorker, _ now: JobDate) -> [String] {
        let rows: [(String, String?)] = [
            ("name", worker.name), ("state", worker.isAlive(at: now) ? "alive" : "dead"),
            ("software", [worker.software, worker.version, worker.system].compactMap { $0 }.joined(separator: " ")),
            ("process", worker.processID.map(String.init)), ("queues", worker.queues?.joined(separator: ", ")),
            ("memory", worker.memory.map { "\($0 >> 20) MiB" }), ("restarts", String(worker.restarts)),
            ("clock", "\((worker.clockSkew * 10).rounded() / 10) s ahead"),
        ]
        let totals = worker.totals.sorted { $0.key < $1.key }.map { name, outcomes in
            "  " + name.padded(to: 32)
                + outcomes.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: "  ")
        }
        let jobs = picture.runningJobs(at: now).filter { $0.worker == worker.name }.map { job in
            "  \(job.id)  \(job.name ?? "-")  \(Printing.age(of: job.startedAt, now: now))"
        }
        return ["", "WORKER"] + rows.compactMap { label, value in value.map { "  " + label.padded(to: 10) + $0 } }
            + ["", "HOW ITS JOBS ENDED"] + (totals.isEmpty ? ["  not told"] : totals) + ["", "RUNNING"]
            + (jobs.isEmpty ? ["  none"] : jobs)
    }

    /// The same for programs.
    func value(at now: JobDate) -> WireValue {
        [
            "queues": .array(
                queues.map { queue in
                    [
                        "name": .string(queue.name), "waiting": .integer(Int64(queue.waiting)),
                        "scheduled": .integer(Int64(queue.scheduled)), "running": .integer(Int64(queue.running)),
                        "failed": .integer(Int64(queue.failed)),
                    ]
                }),
            "workers": .array(
                workers(now).map { worker in
                    [
                        "name": .string(worker.name), "alive": .bool(worker.isAlive(at: now)),
                        "language": worker.isPython.map { .string($0 ? "python" : "swift") } ?? .null,
                        "active": .integer(Int64(worker.active)), "processed": .integer(Int64(worker.processed)),
                    ]
                }),
            "running": .array(
                picture.runningJobs(at: now).map { job in
                    [
                        "id": .string(job.id), "name": job.name.map { .string($0) } ?? .null,
                        "worker": job.worker.map { .string($0) } ?? .null,
                        "started_at": job.startedAt.map { .string(WireTimestamp.string(from: $0)) } ?? .null,
                        "progress": job.progress?.fraction.map { .double($0) } ?? .null,
                    ]
                }),
            "rates": .object(.init(rates.sorted { $0.key < $1.key }.map { ($0, .double($1)) })),
        ]
    }
}

/// A key of the keyboard.
enum TopKey: Sendable, Equatable {
    case character(Character)
    case up, down, enter, escape, backspace

    /// The keys in what a terminal has sent.
    static func read(_ bytes: [UInt8]) -> [TopKey] {
        var keys: [TopKey] = []
        var index = 0
        while index < bytes.count {
            switch bytes[index] {
            case 0x1B where index + 2 < bytes.count && bytes[index + 1] == UInt8(ascii: "["):
                if bytes[index + 2] == UInt8(ascii: "A") { keys.append(.up) }
                if bytes[index + 2] == UInt8(ascii: "B") { keys.append(.down) }
                index += 2
            case 0x1B: keys.append(.escape)
            case 0x0A, 0x0D: keys.append(.enter)
            case 0x08, 0x7F: keys.append(.backspace)
            case let byte where byte >= 0x20: keys.append(.character(Character(Unicode.Scalar(byte))))
            default: break
            }
            index += 1
        }
        return keys
    }
}

extension String {
    fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(1, width - count)) }
}
