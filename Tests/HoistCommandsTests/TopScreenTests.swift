import Foundation
import Hoist
@testable import HoistCommands
import HoistMonitor
import Testing

/// What `hoist top` shows, and what its keys do.
@Suite("hoist top")
struct TopScreenTests {
    private let now = Date(timeIntervalSince1970: 1_800_000_000)

    private func screen() -> TopScreen {
        var screen = TopScreen()
        func hear(_ fields: WireValue.Object) {
            let common: WireValue.Object = [
                "hostname": "a@h", "timestamp": .double(now.timeIntervalSince1970), "clock": 1, "pid": 7,
            ]
            if let event = FleetEvent(common.merging(fields)) { screen.picture.hear(event, at: now) }
        }
        hear(["type": "worker-online", "freq": 2.0, "active": 1, "processed": 3, "sw_ident": "hoist"])
        hear(["type": "worker-online", "freq": 2.0, "hostname": "p@h", "sw_ident": "py-celery"])
        for (id, name) in [("job-1", "encode"), ("job-2", "mail\u{1B}[31m")] {
            hear(["type": "task-received", "uuid": .string(id), "name": .string(name), "args": "(1,)", "kwargs": "{}"])
            hear(["type": "task-started", "uuid": .string(id), "clock": 2])
        }
        hear(["type": "task-received", "uuid": "bad", "name": "encode"])
        hear([
            "type": "task-failed", "uuid": "bad", "clock": 3, "exception": "ValueError('no')",
            "traceback": "line 1\nline 2",
        ])
        screen.queues = [QueueStatistics(name: "media", waiting: 12)]
        return screen
    }

    @Test("every size gets its lines, none longer than the screen, and no control character of a payload")
    func sizes() {
        var screen = screen()
        for focus in ["r", "w", "f"] as [Character] {
            _ = screen.press(.character(focus), at: now)
            for (width, height) in [(80, 24), (40, 10), (200, 60), (1, 1), (0, 0)] {
                let lines = screen.lines(width: width, height: height, at: now)
                #expect(lines.count == max(1, height) || height == 0)
                #expect(lines.allSatisfy { $0.count <= max(1, width) && !$0.contains("\u{1B}") })
            }
        }
    }

    @Test("workers of both languages, queues, running jobs and failures are shown")
    func contents() {
        var screen = screen()
        var text = screen.lines(width: 160, height: 40, at: now).joined(separator: "\n")
        for part in [
            "2 workers", "2 running", "12 waiting", "media", "a@h", "p@h", "Swift", "Python", "job-1", "encode",
        ] {
            #expect(text.contains(part), "\(part) in \(text)")
        }
        _ = screen.press(.character("f"), at: now)
        text = screen.lines(width: 160, height: 40, at: now).joined(separator: "\n")
        #expect(text.contains("ValueError('no')") && !text.contains("job-1"))
        _ = screen.press(.enter, at: now)
        text = screen.lines(width: 160, height: 40, at: now).joined(separator: "\n")
        #expect(text.contains("line 2"))
    }

    @Test("a cancellation is asked for twice")
    func cancel() {
        var screen = screen()
        #expect(screen.press(.character("c"), at: now) == .none)
        #expect(screen.lines(width: 80, height: 24, at: now).last?.contains("cancel job-1?") == true)
        #expect(screen.press(.character("x"), at: now) == .none)
        _ = screen.press(.down, at: now)
        _ = screen.press(.character("c"), at: now)
        #expect(screen.press(.character("y"), at: now) == .cancel("job-2"))
        #expect(screen.press(.character("q"), at: now) == .quit)
    }

    @Test("a filter narrows what is listed")
    func filter() {
        var screen = screen()
        for key in [TopKey.character("/"), .character("m"), .character("a"), .character("i"), .enter] {
            _ = screen.press(key, at: now)
        }
        let text = screen.lines(width: 160, height: 40, at: now).joined(separator: "\n")
        #expect(text.contains("job-2") && !text.contains("job-1"))
    }

    @Test("what a terminal sends is read as keys")
    func keys() {
        #expect(TopKey.read([0x1B, 0x5B, 0x41, 0x1B, 0x5B, 0x42]) == [.up, .down])
        #expect(TopKey.read([0x0D, 0x7F, 0x71, 0x1B, 0x01]) == [.enter, .backspace, .character("q"), .escape])
    }

    @Test("arguments of requests: by place, by name, as an object")
    func arguments() throws {
        func parsed(_ command: String, _ words: String...) throws -> WireValue {
            .object(try FleetArguments.parsed(command, words))
        }
        #expect(try parsed("rate_limit", "mail", "10/m") == ["task_name": "mail", "rate_limit": "10/m"])
        #expect(try parsed("pool_grow", "2", "lane=process") == ["n": 2, "lane": "process"])
        #expect(try parsed("terminate", "SIGKILL", "a", "b") == ["signal": "SIGKILL", "task_id": ["a", "b"]])
        #expect(try parsed("mine", "{\"a\": [1]}") == ["a": [1]])
        #expect(try parsed("revoke_by_stamped_headers", "tenant=acme") == ["headers": ["tenant=acme"]])
        #expect(throws: (any Error).self) { try parsed("ping", "what") }
        #expect(throws: (any Error).self) { try parsed("mine", "{broken") }
    }
}
