public import CoreMetrics
import Synchronization

/// Keeps metrics of swift-metrics, and writes them as Prometheus reads them: text format 0.0.4.
///
/// ```swift
/// let metrics = PrometheusFactory()
/// MetricsSystem.bootstrap(metrics)
/// print(metrics.text())
/// ```
/// Counters become counters, meters and recorders that do not aggregate become gauges, other recorders and timers
/// become histograms; timers are in seconds. What a name or a label may not hold is replaced by `_`.
public final class PrometheusFactory: MetricsFactory {
    public struct Configuration: Sendable {
        /// How many series a family may have. More are counted together, with `other` in each label. 1,000 by default.
        public var seriesPerFamily: Int
        /// The upper bounds of the buckets of timers, in seconds, ascending.
        public var timerBuckets: [Double]
        /// The upper bounds of the buckets of recorders, ascending.
        public var recorderBuckets: [Double]
        /// What each family is about, by its name.
        public var help: [String: String]

        public init(
            seriesPerFamily: Int = 1000,
            timerBuckets: [Double] = [
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800,
            ],
            recorderBuckets: [Double] = (0...10).map { Double(1 << (10 + 2 * $0)) }, help: [String: String] = [:]
        ) {
            self.seriesPerFamily = max(1, seriesPerFamily)
            self.timerBuckets = timerBuckets
            self.recorderBuckets = recorderBuckets
            self.help = help
        }
    }

    enum Kind: String { case counter, gauge, histogram }

    struct Series: Hashable {
        var labels: [Label]

        struct Label: Hashable {
            var name: String
            var value: String
        }
    }

    struct Family {
        var kind: Kind
        var series: [Series: any Instrument] = [:]
    }

    private let configuration: Configuration
    private let families = Mutex<[String: Family]>([:])

    public init(_ configuration: Configuration = Configuration()) { self.configuration = configuration }

    // MARK: - Instruments

    public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        instrument(label, dimensions, .counter) { CounterInstrument() } as? CounterInstrument ?? CounterInstrument()
    }

    public func makeFloatingPointCounter(
        label: String, dimensions: [(String, String)]
    ) -> any FloatingPointCounterHandler {
        instrument(label, dimensions, .counter) { CounterInstrument() } as? CounterInstrument ?? CounterInstrument()
    }

    public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        instrument(label, dimensions, .gauge) { GaugeInstrument() } as? GaugeInstrument ?? GaugeInstrument()
    }

    public func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        guard aggregate else {
            return instrument(label, dimensions, .gauge) { GaugeInstrument() } as? GaugeInstrument ?? GaugeInstrument()
        }
        let buckets = configuration.recorderBuckets
        return instrument(label, dimensions, .histogram) { HistogramInstrument(buckets) } as? HistogramInstrument
            ?? HistogramInstrument(buckets)
    }

    public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        let buckets = configuration.timerBuckets
        return instrument(label, dimensions, .histogram) { HistogramInstrument(buckets) } as? HistogramInstrument
            ?? HistogramInstrument(buckets)
    }

    // A series that was made once stays: Prometheus takes one that comes and goes for a restart.
    public func destroyCounter(_ handler: any CounterHandler) {}
    public func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}
    public func destroyMeter(_ handler: any MeterHandler) {}
    public func destroyRecorder(_ handler: any RecorderHandler) {}
    public func destroyTimer(_ handler: any TimerHandler) {}

    /// The instrument of a series. A name that is another kind already gets the kind behind it.
    private func instrument(
        _ label: String, _ dimensions: [(String, String)], _ kind: Kind, _ make: () -> any Instrument
    ) -> any Instrument {
        var series = Series(
            labels: dimensions.map { .init(name: PrometheusText.labelName($0), value: $1) }.sorted { $0.name < $1.name }
        )
        return families.withLock { families in
            var name = PrometheusText.name(label)
            if let known = families[name], known.kind != kind { name += "_" + kind.rawValue }
            var family = families[name] ?? Family(kind: kind)
            if family.series[series] == nil, family.series.count >= configuration.seriesPerFamily {
                for index in series.labels.indices { series.labels[index].value = "other" }
            }
            let found = family.series[series] ?? make()
            family.series[series] = found
            families[name] = family
            return found
        }
    }

    // MARK: - Text

    /// The `Content-Type` of ``text()``.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// Everything that was recorded so far.
    public func text() -> String {
        let families = families.withLock { $0 }
        var text = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            let help = configuration.help[name] ?? PrometheusText.words(of: name)
            text += "# HELP \(name) \(PrometheusText.escapedHelp(help))\n# TYPE \(name) \(family.kind.rawValue)\n"
            let series = family.series.map { (PrometheusText.labels($0.key), $0.value) }.sorted { $0.0 < $1.0 }
            for (labels, instrument) in series { instrument.write(name, labels, to: &text) }
        }
        return text
    }
}

/// Something that is measured.
protocol Instrument: Sendable {
    /// - Parameter labels: `a="b",c="d"`; empty for none.
    func write(_ name: String, _ labels: String, to text: inout String)
}

final class CounterInstrument: Instrument, CounterHandler, FloatingPointCounterHandler {
    private let value = Mutex(0.0)

    func increment(by amount: Int64) { increment(by: Double(amount)) }

    /// A counter never falls: what is negative, or no number, is left out.
    func increment(by amount: Double) {
        guard amount >= 0, amount.isFinite else { return }
        value.withLock { $0 += amount }
    }

    func reset() { value.withLock { $0 = 0 } }

    func write(_ name: String, _ labels: String, to text: inout String) {
        text += PrometheusText.line(name, labels, value.withLock { $0 })
    }
}

final class GaugeInstrument: Instrument, MeterHandler, RecorderHandler {
    private let value = Mutex(0.0)

    func set(_ value: Int64) { set(Double(value)) }
    func set(_ value: Double) { self.value.withLock { $0 = value } }
    func increment(by amount: Double) { value.withLock { $0 += amount } }
    func decrement(by amount: Double) { value.withLock { $0 -= amount } }
    func record(_ value: Int64) { set(Double(value)) }
    func record(_ value: Double) { set(value) }

    func write(_ name: String, _ labels: String, to text: inout String) {
        text += PrometheusText.line(name, labels, value.withLock { $0 })
    }
}

final class HistogramInstrument: Instrument, RecorderHandler, TimerHandler {
    private struct State {
        /// Of each bucket alone, the last is for all above.
        var counts: [UInt64]
        var sum = 0.0
    }

    private let bounds: [Double]
    private let state: Mutex<State>

    init(_ bounds: [Double]) {
        self.bounds = bounds
        state = Mutex(State(counts: Array(repeating: 0, count: bounds.count + 1)))
    }

    func record(_ value: Int64) { record(Double(value)) }

    func record(_ value: Double) {
        guard value.isFinite else { return }
        let bucket = bounds.firstIndex { value <= $0 } ?? bounds.count
        state.withLock { state in
            state.counts[bucket] += 1
            state.sum += value
        }
    }

    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1_000_000_000) }

    func write(_ name: String, _ labels: String, to text: inout String) {
        let state = state.withLock { $0 }
        let more = labels.isEmpty ? "" : labels + ","
        var count: UInt64 = 0
        for (index, bound) in bounds.enumerated() {
            count += state.counts[index]
            text += PrometheusText.line(
                name + "_bucket", more + "le=\"\(PrometheusText.number(bound))\"", Double(count))
        }
        count += state.counts[bounds.count]
        text += PrometheusText.line(name + "_bucket", more + "le=\"+Inf\"", Double(count))
        text += PrometheusText.line(name + "_sum", labels, state.sum)
        text += PrometheusText.line(name + "_count", labels, Double(count))
    }
}
