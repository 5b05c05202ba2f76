import Foundation
import Hoist
import HoistHummingbird
import ImagePainter

/// What the page shows: pictures, queue and workers, from what the backend and this process know.
struct Gallery: Sendable {
    let store: PictureStore
    let backend: Backend
    let background: BackgroundPictures

    func pictures() async throws -> WireValue {
        let orders = store.orders(limit: 60)
        let queued = orders.filter { $0.mode == .queue }.map { Self.jobID($0.id) }
        let found = queued.isEmpty ? [] : try await backend.jobs(JobFilter(ids: queued, limit: queued.count))
        let records = Dictionary(found.map { ($0.id, $0) }) { first, _ in first }
        let places = Self.places(found)
        return .array(
            orders.compactMap { order in
                switch order.mode {
                case .queue:
                    guard let record = records[Self.jobID(order.id)] else { return nil }
                    return picture(order, record, place: places[record.id])
                case .background: return picture(order)
                }
            })
    }

    static func jobID(_ picture: String) -> JobID { "picture-" + picture }

    /// The place of each job that waits, 1 for the next one.
    private static func places(_ records: [JobRecord]) -> [JobID: Int] {
        let waiting = records.filter { $0.state == .waiting }
            .sorted { ($0.enqueuedAt ?? .distantPast, $0.id) < ($1.enqueuedAt ?? .distantPast, $1.id) }
        return Dictionary(uniqueKeysWithValues: waiting.enumerated().map { ($1.id, $0 + 1) })
    }

    private func picture(_ order: Order, _ record: JobRecord, place: Int?) -> WireValue {
        var shown = facts(order, record.state, record.progress, failure: record.failure.map(JobView.message))
        shown["place"] = place.map { .integer(Int64($0)) } ?? .null
        shown["lost_workers"] = .integer(Int64(record.lostWorkers))
        if let painting = try? record.output(as: Painting.self) { describe(painting, in: &shown) }
        return .object(shown)
    }

    /// - Returns: nil for one that was lost with the process that painted it.
    private func picture(_ order: Order) -> WireValue? {
        if let painting = order.painting {
            var shown = facts(order, .succeeded, JobProgress(fraction: 1), failure: nil)
            describe(painting, in: &shown)
            return .object(shown)
        }
        guard let state = background.state(of: order.id) else { return nil }
        return .object(facts(order, state.state, state.progress, failure: state.failure))
    }

    private func facts(_ order: Order, _ state: JobState, _ progress: JobProgress?, failure: String?) -> WireObject {
        let preview = (1..<Painter.passes).last { store.has(order.id, Studio.preview($0)) }
        func url(_ name: String?) -> WireValue { name.map { .string("/pictures/\(order.id)/\($0)") } ?? .null }
        return [
            "id": .string(order.id), "prompt": .string(order.prompt), "size": .integer(Int64(order.size)),
            "seed": .integer(order.seed), "mode": .string(order.mode.rawValue), "state": .string(state.rawValue),
            "place": .null, "progress": progress?.fraction.map(WireValue.double) ?? .null,
            "message": progress?.message.map(WireValue.string) ?? .null, "preview": url(preview.map(Studio.preview)),
            "image": url(state == .succeeded ? Studio.image : nil), "lost_workers": 0,
            "failure": (state == .failed ? failure : nil).map(WireValue.string) ?? .null, "seconds": .null,
            "painter": .null,
        ]
    }

    private func describe(_ painting: Painting, in shown: inout WireObject) {
        shown["seconds"] = .double((painting.seconds * 100).rounded() / 100)
        shown["painter"] = .string(painting.painter)
    }

    func queue() async throws -> WireValue {
        let images = try await backend.queues().first { $0.name == PaintImage.options.queue }
        return [
            "waiting": .integer(Int64(images.map { $0.waiting + $0.scheduled } ?? 0)),
            "running": .integer(Int64(images?.running ?? 0)),
        ]
    }

    /// Live workers. Those in Python are asked, where the backend is one that they can use.
    func workers() async throws -> WireValue {
        let own = try await backend.workers()
        var shown = own.sorted { $0.name < $1.name }.map { worker -> WireValue in
            [
                "name": .string(worker.name), "language": "swift", "running": .integer(Int64(worker.running)),
                "slots": .integer(Int64(worker.concurrency)),
            ]
        }
        guard backend.broker.address.transport == "redis", let fleet = try? Fleet(backend) else { return .array(shown) }
        let names = Set(own.map(\.name))
        let replies = try await fleet.replies(to: .stats, timeout: .milliseconds(300))
        for (node, stats) in replies.sorted(by: { $0.key < $1.key }) where !names.contains(node) {
            let slots = stats["pool"]?["max-concurrency"]?.integerValue ?? 0
            shown.append(["name": .string(node), "language": "python", "running": 0, "slots": .integer(slots)])
        }
        return .array(shown)
    }
}
