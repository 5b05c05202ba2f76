import Foundation
import Hoist
import HoistMonitor
import HoistRedis
import RESP

/// The parts of the benchmark of events and control that run in processes of their own.
enum FleetBenchmark {
    /// Publishes 5,000 requests a second for ever; a third of them can be nobody's.
    static func flood(_ url: String, channel: String) async throws {
        let client = try RESPClient(RESPConfiguration(url: url))
        let good = frame(#"{"method": "ping", "arguments": {}, "destination": null, "pattern": null, "matcher": null}"#)
        let hostile = [
            "\u{0}\u{1}no request", frame("["), frame(#"{"method": 7}"#),
            frame(#"{"method": "no such", "arguments": {"a": "# + String(repeating: "[", count: 500) + "}"),
            frame(#"{"method": "rate_limit", "arguments": {"task_name": []}}"#), String(repeating: "x", count: 20_000),
        ]
        var number = 0
        var due = ContinuousClock.now
        while true {
            let commands = (0..<50).map { _ in
                number += 1
                let text = number.isMultiple(of: 3) ? hostile[number / 3 % hostile.count] : good
                return RESPCommand("PUBLISH", [.text(channel), .text(text)])
            }
            _ = try await client.send(pipeline: commands)
            due += .milliseconds(10)
            try await Task.sleep(until: due)
        }
    }

    /// Keeps the picture of a fleet.
    static func watch(_ url: String) async throws {
        var picture = FleetPicture()
        for await event in try await Fleet(RedisBackend(url: url)).heardEvents() { picture.hear(event, at: Date()) }
    }

    /// Publishes the heartbeats of so many workers, each every two seconds, for ever.
    static func beat(_ url: String, nodes: Int) async throws {
        let client = try RESPClient(RESPConfiguration(url: url))
        var clock = 0
        var due = ContinuousClock.now
        while true {
            for part in 0..<20 {
                let commands = stride(from: part, to: nodes, by: 20).map { node in
                    clock += 1
                    let body =
                        #"{"type": "worker-heartbeat", "hostname": "w\#(node)@h", "timestamp": \#(Date().timeIntervalSince1970), "#
                        + #""pid": 1, "clock": \#(clock), "freq": 2.0, "active": 1, "processed": \#(clock), "#
                        + #""loadavg": [0.1, 0.2, 0.3], "sw_ident": "hoist", "sw_ver": "0.1.0", "sw_sys": "Linux", "#
                        + #""hoist": {"lanes": {"async": {"slots": 64, "used": 1}}, "queues": ["media"]}}"#
                    return RESPCommand("PUBLISH", ["/0.celeryev/worker.heartbeat", .text(frame(body))])
                }
                _ = try await client.send(pipeline: commands)
                due += .milliseconds(100)
                try await Task.sleep(until: due)
            }
        }
    }

    private static func frame(_ body: String) -> String {
        let escaped = body.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
        return #"{"body": "\#(escaped)", "content-encoding": "utf-8", "content-type": "application/json", "#
            + #""headers": {"hostname": "w@h", "clock": 1}, "properties": {"delivery_mode": 1}}"#
    }
}
