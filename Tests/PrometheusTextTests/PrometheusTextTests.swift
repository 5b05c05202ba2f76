import CoreMetrics
import Foundation
@testable import PrometheusText
import Testing

/// Metrics as Prometheus reads them.
@Suite("Prometheus' text format")
struct PrometheusTextTests {
    @Test("counters, gauges and histograms are written by the rules of the format")
    func kinds() {
        let metrics = PrometheusFactory(.init(timerBuckets: [0.1, 1], help: ["jobs_total": "Jobs\nby \\outcome"]))
        let counter = metrics.makeCounter(
            label: "jobs_total", dimensions: [("queue", "a\"b\\c\nd"), ("outcome", "ok")])
        counter.increment(by: 2)
        counter.increment(by: -1)
        metrics.makeMeter(label: "length", dimensions: []).set(1.5)
        let timer = metrics.makeTimer(label: "run_seconds", dimensions: [("job", "x")])
        for nanoseconds in [50_000_000, 100_000_000, 500_000_000, 7_000_000_000] as [Int64] {
            timer.recordNanoseconds(nanoseconds)
        }
        #expect(
            metrics.text() == #"""
                # HELP jobs_total Jobs\nby \\outcome
                # TYPE jobs_total counter
                jobs_total{outcome="ok",queue="a\"b\\c\nd"} 2
                # HELP length length.
                # TYPE length gauge
                length 1.5
                # HELP run_seconds run seconds.
                # TYPE run_seconds histogram
                run_seconds_bucket{job="x",le="0.1"} 2
                run_seconds_bucket{job="x",le="1"} 3
                run_seconds_bucket{job="x",le="+Inf"} 4
                run_seconds_sum{job="x"} 7.65
                run_seconds_count{job="x"} 4

                """#)
    }

    @Test("above the limit labels become other, and the sum stays right")
    func limit() {
        let metrics = PrometheusFactory(.init(seriesPerFamily: 10))
        for number in 0..<1000 {
            metrics.makeCounter(label: "c_total", dimensions: [("id", "\(number)")]).increment(by: 1)
        }
        let lines = metrics.text().split(separator: "\n").filter { $0.hasPrefix("c_total") }
        #expect(lines.count == 11 && lines.contains("c_total{id=\"other\"} 990"))
    }

    @Test("names and labels that the format does not allow are changed, and numbers are its own")
    func names() {
        #expect(PrometheusText.name("9a-b.c:d é") == "_a_b_c:d__")
        #expect(PrometheusText.labelName("a:b") == "a_b" && PrometheusText.labelName("le") == "le_")
        #expect(PrometheusText.name("") == "_")
        #expect(PrometheusText.number(.infinity) == "+Inf" && PrometheusText.number(-.infinity) == "-Inf")
        #expect(PrometheusText.number(.nan) == "NaN" && PrometheusText.number(3) == "3")
    }

    @Test("one name of two kinds makes two families, and one series is one instrument")
    func clashes() {
        let metrics = PrometheusFactory()
        metrics.makeCounter(label: "a", dimensions: []).increment(by: 1)
        metrics.makeMeter(label: "a", dimensions: []).set(5 as Int64)
        for _ in 0..<3 {
            metrics.makeCounter(label: "b", dimensions: [("x", "1"), ("y", "2")]).increment(by: 1)
            metrics.makeCounter(label: "b", dimensions: [("y", "2"), ("x", "1")]).increment(by: 1)
        }
        let text = metrics.text()
        #expect(text.contains("\na 1\n") && text.contains("\na_gauge 5\n") && text.contains("b{x=\"1\",y=\"2\"} 6\n"))
    }

    private static let promtool = ["/usr/bin/promtool", "/usr/local/bin/promtool"].first {
        FileManager.default.isExecutableFile(atPath: $0)
    }

    @Test(
        "promtool accepts what is written, whatever names and values it was given",
        .enabled(if: promtool != nil, "promtool is missing; scripts/test installs it"))
    func checked() throws {
        let metrics = PrometheusFactory()
        for label in ["hoist_jobs_total", "9 strange-name_total", "hoist_queue_length"] {
            let dimensions = [("queue", "a\"b\\c\nd\u{e9}\u{1f600}"), ("a-b", ""), ("le", "1")]
            if label.hasSuffix("total") {
                metrics.makeCounter(label: label, dimensions: dimensions).increment(by: 3)
            } else {
                for value in [Double.nan, .infinity, -1e300] {
                    metrics.makeMeter(label: label, dimensions: dimensions).set(value)
                }
            }
        }
        metrics.makeTimer(label: "hoist_job_run_seconds", dimensions: [("job", "x")]).recordNanoseconds(7)
        metrics.makeRecorder(label: "peak_bytes", dimensions: [], aggregate: true).record(1 << 40)
        let (process, input, output) = (Process(), Pipe(), Pipe())
        process.executableURL = URL(fileURLWithPath: try #require(Self.promtool))
        process.arguments = ["check", "metrics"]
        (process.standardInput, process.standardOutput, process.standardError) = (input, output, output)
        try process.run()
        try input.fileHandleForWriting.write(contentsOf: Data(metrics.text().utf8))
        try input.fileHandleForWriting.close()
        let said = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        // 3: it can be read, and a name is not as Prometheus' conventions would have it.
        #expect(process.terminationStatus == 0 || process.terminationStatus == 3, "\(said)\n\(metrics.text())")
    }
}
