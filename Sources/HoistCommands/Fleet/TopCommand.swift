import ArgumentParser
import Hoist
import HoistMonitor
import Synchronization
import UnixSignals

#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif
#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

struct TopCommand: AskingCommand {
    static let configuration = CommandConfiguration(
        commandName: "top", abstract: "Watch queues, workers and running jobs, live.",
        discussion: """
            Keys: q quit, r running jobs, f failures, w workers, arrows and enter to open one, / filter, s sort, c cancel (asks first).
            Without a terminal, and with --once, one picture is printed after three seconds of listening.
            """)
    @OptionGroup var options: InspectionOptions
    @Flag(name: .long, help: "Print one picture and end.") var once = false

    func perform() async throws {
        let backend = try options.open()
        let fleet = try Fleet(backend)
        let screen = SharedScreen()
        let events = try await fleet.heardEvents()
        let isLive = !once && !options.json && isatty(1) == 1 && isatty(0) == 1
        try await withThrowingTaskGroup { group in
            group.addTask {
                for await event in events { screen.change { _ = $0.picture.hear(event, at: JobDate()) } }
            }
            group.addTask { await Self.look(fleet, screen) }
            if isLive {
                try await show(fleet, screen)
            } else {
                try await Task.sleep(for: .seconds(3))
                screen.change { $0.measure(at: JobDate()) }
                let now = JobDate()
                if options.json {
                    print(JSONText.shown(screen.change { $0.value(at: now) }))
                } else {
                    print(
                        screen.change { $0.lines(width: 160, height: 60, at: now) }.dropLast().joined(separator: "\n"))
                }
            }
            group.cancelAll()
        }
    }

    /// Asks for what events do not tell: queues, and what runs already.
    private static func look(_ fleet: Fleet, _ screen: SharedScreen) async {
        for query in [(Fleet.Query.stats, "stats"), (.active, "active"), (.activeQueues, "active_queues")] {
            for (node, value) in (try? await fleet.replies(to: query.0)) ?? [:] {
                screen.change { $0.picture.hear(ControlReply(node: node, value: value), to: query.1, at: JobDate()) }
            }
        }
        while !Task.isCancelled {
            if let queues = try? await fleet.backend.queues() { screen.change { $0.queues = queues } }
            screen.change { screen in
                screen.measure(at: JobDate())
                screen.picture.tidy(at: JobDate())
            }
            try? await Task.sleep(for: .seconds(2))
        }
    }

    /// Draws twice a second and at every key, until somebody quits.
    private func show(_ fleet: Fleet, _ screen: SharedScreen) async throws {
        let terminal = Terminal()
        terminal.begin()
        defer { terminal.end() }
        let happenings = AsyncStream<Happening>.fed(bufferingPolicy: .bufferingNewest(1000)) { happened in
            startThread(named: "hoist-keys") { Terminal.readKeys { happened.yield(.keys($0)) } }
            await untilEitherEnds {
                while !Task.isCancelled {
                    happened.yield(.draw)
                    try? await Task.sleep(for: .milliseconds(500))
                }
            } _: {
                for await _ in await UnixSignalsSequence(trapping: .sigint, .sigterm) { happened.yield(.stop) }
            }
        }
        for await happening in happenings {
            switch happening {
            case .stop: return
            case .draw: break
            case .keys(let bytes):
                for key in TopKey.read(bytes) {
                    switch screen.change({ $0.press(key, at: JobDate()) }) {
                    case .none: break
                    case .quit: return
                    case .cancel(let id):
                        let result = try? await fleet.backend.cancel(id)
                        screen.change {
                            $0.say("cancel \(id): " + (result.map { "\($0)" } ?? "the backend did not answer"))
                        }
                    }
                }
            }
            let size = Terminal.size
            terminal.draw(screen.change { $0.lines(width: size.width, height: size.height, at: JobDate()) })
        }
    }

    private enum Happening: Sendable {
        case keys([UInt8])
        case draw, stop
    }
}

/// The screen, which several tasks change.
private final class SharedScreen: Sendable {
    private let state = Mutex(TopScreen())

    func change<T: Sendable>(_ body: (inout TopScreen) -> T) -> T { state.withLock { body(&$0) } }
}

/// The terminal that the program was started in.
private final class Terminal {
    private var before = termios()

    /// Keys come one by one and are not shown; what was on the screen is kept.
    func begin() {
        tcgetattr(0, &before)
        var raw = before
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
        tcsetattr(0, TCSANOW, &raw)
        put("\u{1B}[?1049h\u{1B}[?25l")
    }

    func end() {
        put("\u{1B}[?25h\u{1B}[?1049l")
        tcsetattr(0, TCSANOW, &before)
    }

    func draw(_ lines: [String]) {
        put("\u{1B}[H" + lines.map { $0 + "\u{1B}[K" }.joined(separator: "\r\n") + "\u{1B}[J")
    }

    private func put(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
            guard count > 0 else { return }
            bytes = bytes.dropFirst(count)
        }
    }

    /// 80 by 24 where it is not known.
    static var size: (width: Int, height: Int) {
        var size = winsize()
        guard ioctl(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    static func readKeys(_ body: ([UInt8]) -> Void) {
        var buffer = [UInt8](repeating: 0, count: 64)
        while true {
            let count = read(0, &buffer, buffer.count)
            guard count > 0 else { return }
            body(Array(buffer.prefix(count)))
        }
    }
}
