import Hoist

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// A chart as SVG that the server draws: it can be read aloud, and needs no script.
struct Chart: Sendable {
    enum Mark: Sendable {
        /// Counts, with a second count (failures) on top.
        case bars(lower: [Double?], upper: [Double?])
        /// Lines, each with a class of the style sheet and a label.
        case lines([Line])
    }

    struct Line: Sendable {
        var style: String
        var label: String
        var values: [Double?]
    }

    var title: String
    /// Only whole numbers are counted: the axis has no halves.
    var isWhole = false
    /// What stands at the top left.
    var unit: String
    /// Seconds since 1970 of each place.
    var starts: [Int]
    var step: Int
    var mark: Mark
    /// Places of which nothing is known.
    var hatched: Set<Int> = []
    /// How a value is written.
    var format: @Sendable (Double) -> String

    private static let width = 560.0
    private static let height = 160.0
    private static let plot = (left: 0.0, right: 510.0, top: 22.0, bottom: 138.0)

    private var highest: Double {
        let values: [Double] =
            switch mark {
            case .bars(let lower, let upper): zip(lower, upper).map { ($0 ?? 0) + ($1 ?? 0) }
            case .lines(let lines): lines.flatMap { $0.values.compactMap { $0 } }
            }
        let highest = Self.nice(values.max() ?? 0)
        return isWhole ? max(2, highest) : highest
    }

    /// The next 1, 2 or 5 with zeros.
    static func nice(_ value: Double) -> Double {
        guard value > 0, value.isFinite else { return 1 }
        var power = 1.0
        while power * 10 <= value { power *= 10 }
        while power > value { power /= 10 }
        for step in [1.0, 2, 5, 10] where step * power >= value { return step * power }
        return 10 * power
    }

    private func x(_ index: Int) -> Double {
        Self.plot.left + (Self.plot.right - Self.plot.left) * Double(index) / Double(max(1, starts.count))
    }

    private func y(_ value: Double, _ highest: Double) -> Double {
        Self.plot.bottom - (Self.plot.bottom - Self.plot.top) * min(value, highest) / highest
    }

    private static func number(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }

    /// The picture.
    var svg: String {
        let highest = highest
        var svg =
            "<svg class=\"chart\" viewBox=\"0 0 560 160\" role=\"img\" aria-label=\"\(Self.escape(title)). \(Self.escape(summary))\">"
        svg += "<text class=\"u\" x=\"0\" y=\"12\">\(Self.escape(unit))</text>"
        for share in [0.0, 0.5, 1.0] {
            let y = y(share * highest, highest)
            svg += "<line class=\"grid\" x1=\"0\" x2=\"510\" y1=\"\(Self.number(y))\" y2=\"\(Self.number(y))\"/>"
            svg +=
                "<text class=\"ax\" x=\"516\" y=\"\(Self.number(y + 4))\">\(Self.escape(format(share * highest)))</text>"
        }
        for share in 0...4 {
            let index = min(starts.count - 1, starts.count * share / 4)
            guard index >= 0 else { break }
            let anchor = share == 0 ? "start" : share == 4 ? "end" : "middle"
            svg +=
                "<text class=\"ax\" x=\"\(Self.number(510 * Double(share) / 4))\" y=\"155\" text-anchor=\"\(anchor)\">"
            svg += Self.clockText(starts[index], step: step) + "</text>"
        }
        for index in hatched.sorted() where starts.indices.contains(index) {
            svg +=
                "<rect class=\"unseen\" x=\"\(Self.number(x(index)))\" y=\"22\" width=\"\(Self.number(x(1) - x(0)))\" height=\"116\"/>"
        }
        switch mark {
        case .bars(let lower, let upper): drawBars(lower, upper, highest, to: &svg)
        case .lines(let lines): drawLines(lines, highest, to: &svg)
        }
        return svg + "</svg>"
    }

    private func drawBars(_ lower: [Double?], _ upper: [Double?], _ highest: Double, to svg: inout String) {
        let width = max(1, (x(1) - x(0)) * 0.8)
        for index in starts.indices {
            let (good, bad) = (lower[index] ?? 0, upper[index] ?? 0)
            let base = y(good, highest)
            if good > 0 {
                svg += Self.bar("ok", x(index), base, width, Self.plot.bottom - base)
            }
            if bad > 0 {
                // One in a million is seen.
                let height = max(2, base - y(good + bad, highest))
                svg += Self.bar("bad", x(index), base - height, width, height)
            }
        }
    }

    private static func bar(_ style: String, _ x: Double, _ y: Double, _ width: Double, _ height: Double) -> String {
        "<rect class=\"\(style)\" x=\"\(number(x))\" y=\"\(number(y))\" width=\"\(number(width))\" height=\"\(number(max(height, 0.5)))\"/>"
    }

    private func drawLines(_ lines: [Line], _ highest: Double, to svg: inout String) {
        var labels: [(y: Double, text: String)] = []
        for line in lines {
            var points: [String] = []
            var last: Double?
            func flush() {
                guard !points.isEmpty else { return }
                // One point alone would not be seen.
                if points.count == 1 { points.append(points[0]) }
                svg += "<polyline class=\"\(line.style)\" points=\"\(points.joined(separator: " "))\"/>"
                points = []
            }
            for (index, value) in line.values.enumerated() {
                guard let value else {
                    flush()
                    continue
                }
                last = value
                let middle = (x(index) + x(index + 1)) / 2
                points.append(Self.number(middle) + "," + Self.number(y(value, highest)))
            }
            flush()
            if let last { labels.append((y(last, highest), line.label)) }
        }
        // Labels that would lie on each other move apart, and all stay above the axis.
        var ceiling = Self.plot.bottom - 3
        for label in labels.sorted(by: { $0.y > $1.y }) {
            let y = min(label.y - 4, ceiling)
            ceiling = y - 13
            svg +=
                "<text class=\"lab\" x=\"506\" y=\"\(Self.number(y))\" text-anchor=\"end\">\(Self.escape(label.text))</text>"
        }
    }

    /// What a person hears who does not see it.
    private var summary: String {
        switch mark {
        case .bars(let lower, let upper):
            let (good, bad) = (lower.reduce(0) { $0 + ($1 ?? 0) }, upper.reduce(0) { $0 + ($1 ?? 0) })
            return "Sum \(format(good + bad)), of these \(format(bad)) failed."
        case .lines(let lines):
            return lines.map { line in
                let last = line.values.last(where: { $0 != nil }) ?? nil
                return line.label + " " + (last.map(format) ?? "unknown")
            }.joined(separator: ", ") + "."
        }
    }

    /// The same as rows, for the table behind the chart.
    var rows: [(time: String, values: [String])] {
        starts.indices.reversed().map { index in
            let values: [Double?] =
                switch mark {
                case .bars(let lower, let upper): [lower[index], upper[index]]
                case .lines(let lines): lines.map { $0.values[index] }
                }
            return (Self.clockText(starts[index], step: step), values.map { $0.map(format) ?? "–" })
        }
    }

    var columns: [String] {
        switch mark {
        case .bars: ["succeeded", "failed"]
        case .lines(let lines): lines.map(\.label)
        }
    }

    /// UTC, as all times that are not relative.
    private static func clockText(_ second: Int, step: Int) -> String {
        let text = WireTimestamp.string(from: Date(timeIntervalSince1970: Double(second)))
        let (day, time) = (text.prefix(10), text.dropFirst(11).prefix(step < 60 ? 8 : 5))
        return step >= 7200 ? String(day.dropFirst(5)) + (step >= 86_400 ? "" : " " + time) : String(time)
    }

    static func escape(_ text: String) -> String { PageText.escape(text) }
}

/// A line of 96 × 20 in a table.
enum SparkLine {
    static func svg(_ values: [Double]) -> String {
        let highest = max(values.max() ?? 0, 0.000_001)
        let points = values.enumerated().map { index, value in
            let x = 96 * Double(index) / Double(max(1, values.count - 1))
            let y = 18 - 16 * value / highest
            return "\(Int(x * 10) / 10).\(Int(x * 10) % 10),\(Int(y * 10) / 10).\(abs(Int(y * 10)) % 10)"
        }
        return
            "<svg class=\"spark\" viewBox=\"0 0 96 20\" width=\"96\" height=\"20\" aria-hidden=\"true\"><polyline points=\""
            + points.joined(separator: " ") + "\"/></svg>"
    }
}
