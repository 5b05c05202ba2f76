import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// The life of a job to scale: how long it waited, and each attempt that it ran.
struct LifeLine {
    var job: HistoryJob?
    var record: JobRecord?
    var attempts: [HistoryAttempt]
    var now: Date

    private struct Span {
        var style: String
        var label: String
        var begin: Date
        var end: Date
    }

    private var spans: [Span] {
        let begin = record?.enqueuedAt ?? job?.sentAt ?? job?.receivedAt
        let hasEnded = record?.state.hasEnded ?? job?.state.hasEnded ?? false
        let end = record?.endedAt ?? job?.endedAt ?? (hasEnded ? nil : now)
        var spans: [Span] = []
        var last = begin
        for attempt in attempts {
            guard let start = attempt.startedAt else { continue }
            if let last, start > last { spans.append(Span(style: "waiting", label: "waits", begin: last, end: start)) }
            let stop = attempt.endedAt ?? end ?? start
            spans.append(
                Span(
                    style: attempt.state?.word ?? "running", label: "attempt \(attempt.number)", begin: start,
                    end: max(start, stop)))
            last = max(start, stop)
        }
        if let last, let end, end > last, !hasEnded || spans.isEmpty {
            spans.append(Span(style: "waiting", label: "waits", begin: last, end: end))
        }
        return spans
    }

    /// The picture; empty where no time is known.
    var svg: String {
        let spans = spans
        guard let first = spans.first?.begin, let last = spans.map(\.end).max() else { return "" }
        let whole = max(last.timeIntervalSince(first), 0.001)
        var svg = ""
        var words: [String] = []
        for span in spans.prefix(200) {
            let seconds = span.end.timeIntervalSince(span.begin)
            let x = span.begin.timeIntervalSince(first) / whole * 800
            let width = max(2, seconds / whole * 800)
            let label = "\(span.label) \(Format.span(seconds).text)"
            words.append(label)
            svg +=
                "<rect class=\"s-\(Chart.escape(span.style))\" x=\"\(Int(x))\" y=\"8\" width=\"\(Int(width))\" height=\"16\" rx=\"2\"><title>\(Chart.escape(label))</title></rect>"
            if width > 90 { svg += "<text class=\"ax\" x=\"\(Int(x))\" y=\"40\">\(Chart.escape(label))</text>" }
        }
        return
            "<section class=\"blk\"><svg class=\"life\" viewBox=\"0 0 800 46\" role=\"img\" aria-label=\"Life of the job: \(Chart.escape(words.joined(separator: ", ")))\">\(svg)</svg></section>"
    }
}
