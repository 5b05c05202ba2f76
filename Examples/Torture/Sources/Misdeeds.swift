import Hoist

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What jobs do that bring their process down, or try.
enum Misdeeds {
    struct Raised: Error {}

    static func perform(_ job: Ordeal) throws -> Int {
        switch job.deed {
        case .good: break
        case .trap: _ = [Int]()[job.number & 7]
        case .segfault: UnsafeMutablePointer<Int>(bitPattern: 8 + (job.number & 7) * 8)!.pointee = 1
        case .exit: exit(3)
        case .killSelf: kill(getpid(), SIGKILL)
        case .spin: spin()
        case .ignoreTermination:
            signal(SIGTERM, SIG_IGN)
            spin()
        case .allocate: allocateWithoutEnd()
        case .garbage: writeIntoEverySocket()
        case .closeChannel: closeEverySocket()
        case .fork: startFork()
        case .daemon: startDaemon()
        case .flood: print100Megabytes()
        case .raise: throw Raised()
        }
        return job.number * 2
    }

    private static func spin() {
        var number: UInt64 = 1
        while number != 0 { number = number &* 3 | 1 }
    }

    private static func allocateWithoutEnd() {
        while true {
            let block = UnsafeMutableRawPointer.allocate(byteCount: 8 << 20, alignment: 4096)
            for page in stride(from: 0, to: 8 << 20, by: 4096) {
                block.storeBytes(of: 1, toByteOffset: page, as: UInt8.self)
            }
        }
    }

    private static func sockets() -> [Int32] {
        (3..<1024).filter { descriptor in
            var status = stat()
            return fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFSOCK
        }
    }

    private static func writeIntoEverySocket() {
        let garbage = [UInt8](repeating: 0xA5, count: 10_000)
        for socket in sockets() { _ = write(socket, garbage, garbage.count) }
        usleep(1_000_000)
    }

    private static func closeEverySocket() {
        for socket in sockets() { close(socket) }
    }

    /// A fork without exec has every descriptor of its parent.
    private static func startFork() {
        typealias Fork = @convention(c) () -> pid_t
        guard let symbol = dlsym(nil, "fork") else { return }
        if unsafeBitCast(symbol, to: Fork.self)() == 0 { while true { sleep(1000) } }
    }

    /// In a session of its own, where no signal to the group reaches it.
    private static func startDaemon() {
        for command in [
            "sleep 1001 &", "setsid sleep 1002 &", "setsid sh -c 'trap \"\" TERM; sleep 1003 & sleep 1004' &",
        ] {
            var process: pid_t = 0
            var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("sh"), strdup("-c"), strdup(command), nil]
            posix_spawn(&process, "/bin/sh", nil, nil, &arguments, environ)
            waitpid(process, nil, 0)
            for argument in arguments { free(argument) }
        }
    }

    private static func print100Megabytes() {
        let line = [UInt8](repeating: UInt8(ascii: "x"), count: 99) + [UInt8(ascii: "\n")]
        let block = Array(repeatElement(line, count: 1000).joined())
        for _ in 0..<1000 {
            var start = 0
            while start < block.count {
                let written = block.withUnsafeBytes { write(1, $0.baseAddress! + start, $0.count - start) }
                if written <= 0 { return }
                start += written
            }
        }
    }
}
