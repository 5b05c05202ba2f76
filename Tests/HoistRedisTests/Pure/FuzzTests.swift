import Hoist
@testable import HoistRedis
import HoistTesting
import Testing

/// Results, records and what is known of deliveries, mutated.
@Suite("Mutated values of Redis", .timeLimit(.minutes(10)))
struct FuzzTests {
    @Test("results")
    func results() {
        let corpus = [
            #"{"status": "SUCCESS", "result": [1, {"a": null}], "traceback": null, "children": [[["id", null], null]], "date_done": "2026-11-29T12:00:00.000000+00:00", "task_id": "x"}"#,
            #"{"status":"FAILURE","result":{"exc_type":"ValueError","exc_message":["no"],"exc_module":"builtins"},"traceback":"Traceback","children":[]}"#,
            #"{"status":"PROGRESS","result":{"current":1,"total":3},"hoist":{"t":1,"p":9,"attempts":2,"at":3,"began":4,"usage":{"cpuSeconds":1,"wallSeconds":2}}}"#,
        ].map { Array($0.utf8) }
        Fuzzing.run("results", corpus: corpus, tokens: Fuzzing.defaultTokens + ["\"hoist\":{\"t\":", "\"current\":"]) {
            bytes in
            guard let result = StoredResult(bytes) else { return }
            _ = (result.state, result.progress, result.failure, result.changedAt)
        }
    }

    @Test("records and deliveries")
    func records() {
        let corpus = [
            #"p{"q":"q","n":"job","s":"waiting","p":9,"t":1,"at":2,"lost":1}"#,
            #"x{"q":"q","n":"job","s":"retrying","p":0,"t":1,"u":["k","remembered",60.5],"h":[],"f":{"kind":"raised"}}"#,
            "7\n1700000000000000\nq\np{\"q\":\"q\",\"n\":\"job\",\"s\":\"waiting\",\"p\":9,\"t\":1}",
        ].map { Array($0.utf8) }
        Fuzzing.run("records", corpus: corpus) { bytes in
            if let record = StoredJob(bytes) { _ = StoredJob(record.encoded) }
            _ = HeldJob(bytes, envelope: [])
        }
    }
}
