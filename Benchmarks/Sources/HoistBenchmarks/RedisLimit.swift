import Foundation

/// Whole jobs through Redis with nothing but sockets and scripts, as fast as the server can: the difference between
/// this rate and Hoist's is the cost of being a queue.
///
/// A message of Hoist's (680 bytes) is pushed, claimed by a script that assigns it to a worker, and released, 16 at a
/// time on four connections that never wait for one another.
enum RedisLimit {
    enum Steps {
        /// The steps that every queue with at-least-once delivery needs.
        case fewest
        /// The steps of Hoist: ids are enqueued once, jobs have a record while they wait, are held under a token, and
        /// their followers are notified.
        case ours

        fileprivate var claim: String {
            switch self {
            case .fewest:
                "local e=redis.call('RPOP',KEYS[1],16) for i=1,#e do redis.call('HSET',KEYS[2],ARGV[i],e[i]) end return e"
            case .ours:
                """
                local e = redis.call('RPOP', KEYS[1], 16)
                local ids, keys, held, info = {}, {}, {}, {}
                for i = 1, #e do ids[i], keys[i] = ARGV[i], 'job:' .. ARGV[i] end
                redis.call('HMGET', KEYS[2] .. ':info', unpack(ids))
                local records = redis.call('MGET', unpack(keys))
                local token = redis.call('INCRBY', 'token', 16)
                for i = 1, #e do
                    held[2 * i - 1], held[2 * i], info[2 * i - 1], info[2 * i] = ids[i], e[i], ids[i], token + i .. records[i]
                end
                redis.call('HSET', KEYS[2], unpack(held))
                redis.call('HSET', KEYS[2] .. ':info', unpack(info))
                redis.call('PUBLISH', 'started', table.concat(ids))
                return e
                """
            }
        }
    }

    static func run(port: Int, seconds: Double, steps: Steps) throws {
        let cycles = 4
        let connections = try (0..<cycles).map { try Connection(port: port, number: $0, steps: steps) }
        let begin = DispatchTime.now().uptimeNanoseconds
        let end = begin + UInt64(seconds * 1e9)
        for connection in connections { connection.sendBatch() }
        var jobs = 0
        while DispatchTime.now().uptimeNanoseconds < end {
            for connection in connections {
                try connection.readBatch()
                connection.sendBatch()
                jobs += 16
            }
        }
        print(Double(jobs) / (Double(DispatchTime.now().uptimeNanoseconds - begin) / 1e9))
    }

    private final class Connection {
        private let descriptor: Int32
        private let batch: [UInt8]
        /// The bytes that end the last reply of a batch, and no other reply.
        private let end: [UInt8]

        init(port: Int, number: Int, steps: Steps) throws {
            let opened = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            descriptor = opened
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(port).bigEndian
            address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
            let connected = withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(opened, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            guard connected == 0 else { throw CocoaError(.fileReadUnknown) }
            let ids = (0..<16).map { "00000000-0000-0000-0000-00000000\(number)0\($0 + 10)" }
            let payload = String(repeating: "x", count: 680)
            let (queue, held) = ("limit:\(number)", "limit:held:\(number)")
            var bytes: [UInt8] = []
            func command(_ words: [String]) {
                bytes += Array("*\(words.count)\r\n".utf8)
                for word in words { bytes += Array("$\(word.utf8.count)\r\n\(word)\r\n".utf8) }
            }
            let records = ids.map { "job:" + $0 }
            command(["LPUSH", queue] + ids.map { _ in payload })
            if steps == .ours { command(["MSETNX"] + records.flatMap { [$0, String(repeating: "r", count: 130)] }) }
            command(["EVAL", steps.claim, "2", queue, held] + ids)
            if steps == .ours { command(["HMGET", held + ":info"] + ids) }
            command(["HDEL", held] + ids)
            if steps == .ours {
                command(["HDEL", held + ":info"] + ids)
                command(["DEL"] + records)
                // The check of ids for the next batch. It comes last, because no other command has a reply like it.
                command(["EXISTS"] + ids.map { "celery-task-meta-" + $0 })
            }
            batch = bytes
            end = Array((steps == .ours ? "\r\n:0\r\n" : "\r\n:16\r\n").utf8)
        }

        deinit { close(descriptor) }

        func sendBatch() {
            var sent = 0
            while sent < batch.count {
                let count = batch.withUnsafeBytes { write(descriptor, $0.baseAddress! + sent, batch.count - sent) }
                if count <= 0 { return }
                sent += count
            }
        }

        private var buffer = [UInt8](repeating: 0, count: 1 << 16)

        func readBatch() throws {
            var tail: [UInt8] = []
            repeat {
                let count = read(descriptor, &buffer, buffer.count)
                guard count > 0 else { throw CocoaError(.fileReadUnknown) }
                tail = Array((tail + buffer[max(0, count - 16)..<count]).suffix(16))
            } while !tail.elementsEqual(tail.dropLast(end.count) + end)
        }
    }
}
