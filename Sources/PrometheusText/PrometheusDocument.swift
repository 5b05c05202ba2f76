/// Metrics in Prometheus' text format 0.0.4, written family by family from values that a program has anyway.
package struct PrometheusDocument: Sendable {
    package enum Kind: String, Sendable { case counter, gauge, histogram }

    /// A series: its labels, and what follows the family's name (`_bucket`, `_sum`, `_count` of a histogram).
    package struct Sample: Sendable {
        package var suffix: String
        package var labels: [(name: String, value: String)]
        package var value: Double

        package init(_ labels: [(name: String, value: String)] = [], _ value: Double, suffix: String = "") {
            self.labels = labels
            self.value = value
            self.suffix = suffix
        }
    }

    package private(set) var text = ""

    package init() {}

    /// Writes a family; nothing where it has no samples.
    /// - Parameters:
    ///   - name: cleaned of what a name may not have.
    ///   - help: one line for people.
    package mutating func add(_ name: String, _ kind: Kind, _ help: String, _ samples: [Sample]) {
        guard !samples.isEmpty else { return }
        let name = PrometheusText.name(name)
        text += "# HELP \(name) \(PrometheusText.escapedHelp(help))\n# TYPE \(name) \(kind.rawValue)\n"
        for sample in samples {
            let labels = sample.labels.map { "\($0.name)=\"\(PrometheusText.escapedValue($0.value))\"" }
                .joined(separator: ",")
            text += PrometheusText.line(name + sample.suffix, labels, sample.value)
        }
    }
}
