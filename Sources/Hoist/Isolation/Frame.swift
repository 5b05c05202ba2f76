/// A message between a worker and a child of its process lane: a length of four bytes, a byte for the kind, and the
/// members of the kind. Numbers are little-endian. There are no versions: both ends are the same executable, unless
/// ``ProcessOptions/executable`` names another.
///
/// A child may be broken in any way: its frames are checked against limits before anything is allocated for their
/// content, and an unreadable frame ends the child and nothing else.
enum Frame {
    /// Room for a message with its headers, or for an output, and for the other members of the frame.
    static let maximumBytes = WireLimits.default.maximumBytes * 2
}

/// From the worker to a child.
enum ChildCommand: Sendable {
    case perform(IsolatedCall)
    case cancel(RunID, JobContext.CancellationReason)
    case reply(ChildRequest.ID, ChildReply)
    /// A record that the child watches has changed; nil when there will be no more.
    case update(ChildRequest.ID, JobRecord?)
    /// There is no more work.
    case stop

    typealias RunID = WorkerInbox.RunID
}

/// One attempt, as the worker sends it to a child.
struct IsolatedCall: Sendable {
    var run: WorkerInbox.RunID
    var jobID: JobID
    var jobName: String
    var queue: String
    var attempt: Int
    var lostWorkers: Int
    /// The limits that the child watches itself, and its memory limit. The hard time limit is not sent.
    var limits: RunLimits
    var envelope: [UInt8]
}

/// From a child to its worker.
enum ChildReport: Sendable {
    /// The child has its handlers, and takes jobs.
    case ready
    case finished(IsolatedResult)
    case progress(WorkerInbox.RunID, JobProgress)
    /// A sign of progress.
    case sign(WorkerInbox.RunID)
    case log(WorkerInbox.RunID, LogLine)
    case request(ChildRequest.ID, ChildRequest)
}

/// A line of a handler's logger.
struct LogLine: Sendable, Equatable, Codable {
    var level: String
    var message: String
    var metadata: [String: String]
    var source: String
}

/// The result of an attempt in a child.
struct IsolatedResult: Sendable {
    var run: WorkerInbox.RunID
    var outcome: Outcome
    var children: [JobID] = []
    /// Microseconds of processor time of this attempt.
    var cpu: Int64 = 0
    /// Microseconds from its beginning to its end.
    var wall: Int64 = 0
    var peakMemory: Int?
    /// The memory that the process holds now, in bytes.
    var memory = 0
    /// Whether the job has left processes behind.
    var hasDescendants = false

    init(run: WorkerInbox.RunID, outcome: Outcome) {
        self.run = run
        self.outcome = outcome
    }
}

/// A request of a handler in a child to the backend. Only the worker talks to the backend.
enum ChildRequest: Sendable {
    typealias ID = UInt64

    case publish([Message], within: Duration)
    case record(JobID)
    case log(JobID)
    case cancel(JobID)
    case forget(JobID)
    case watch(JobID)
    case unwatch(ID)
    case queues(exchange: String, topic: String)
    case bind(queue: String, exchange: String, pattern: String, isUndone: Bool)
    case broadcast(Message, channel: String)
}

enum ChildReply: Sendable {
    case published([PublishResult])
    case record(JobRecord?)
    case log(JobLog?)
    case cancelled(CancelResult)
    case bool(Bool)
    case number(Int)
    case names([String])
    case done
    case failed(BackendError)
}

/// Writes the members of a frame.
struct FrameWriter {
    private(set) var bytes: [UInt8]

    init(kind: UInt8, reserving capacity: Int = 64) {
        bytes = []
        bytes.reserveCapacity(capacity + 5)
        bytes += [0, 0, 0, 0, kind]
    }

    mutating func byte(_ value: UInt8) { bytes.append(value) }

    mutating func integer(_ value: Int64) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func unsigned(_ value: UInt64) { integer(Int64(bitPattern: value)) }

    mutating func optional(_ value: Int64?) {
        byte(value == nil ? 0 : 1)
        if let value { integer(value) }
    }

    mutating func data(_ value: some Collection<UInt8>) {
        integer(Int64(value.count))
        bytes.append(contentsOf: value)
    }

    mutating func text(_ value: String) { data(value.utf8) }

    mutating func texts(_ values: [String]) {
        integer(Int64(values.count))
        for value in values { text(value) }
    }

    /// Writes a rare member, as JSON.
    mutating func json(_ value: some Encodable) { data((try? JSONText.encode(value)) ?? []) }

    /// The frame, with its length in front.
    consuming func finished() -> [UInt8] {
        let length = UInt32(bytes.count - 4)
        for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(index))) }
        return bytes
    }
}

/// Reads the members of a frame. Whatever the bytes are, it throws and does not trap.
struct FrameReader {
    private let bytes: ArraySlice<UInt8>
    private var position: Int

    init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }

    mutating func byte() throws(WireError) -> UInt8 {
        guard position < bytes.endIndex else { throw WireError("a frame is too short") }
        defer { position += 1 }
        return bytes[position]
    }

    mutating func integer() throws(WireError) -> Int64 {
        guard bytes.endIndex - position >= 8 else { throw WireError("a frame is too short") }
        var value: UInt64 = 0
        for index in 0..<8 { value |= UInt64(bytes[position + index]) << (8 * UInt64(index)) }
        position += 8
        return Int64(bitPattern: value)
    }

    mutating func unsigned() throws(WireError) -> UInt64 { UInt64(bitPattern: try integer()) }

    mutating func optional() throws(WireError) -> Int64? { try byte() == 0 ? nil : try integer() }

    mutating func data() throws(WireError) -> [UInt8] {
        let count = try integer()
        guard count >= 0, count <= bytes.endIndex - position else {
            throw WireError("a member of a frame is longer than the frame")
        }
        defer { position += Int(count) }
        return Array(bytes[position..<position + Int(count)])
    }

    mutating func text() throws(WireError) -> String { String(decoding: try data(), as: UTF8.self) }

    mutating func texts() throws(WireError) -> [String] {
        let count = try integer()
        // Each takes eight bytes at least.
        guard count >= 0, count <= (bytes.endIndex - position) / 8 else {
            throw WireError("a list is longer than its frame")
        }
        var values: [String] = []
        for _ in 0..<count { values.append(try text()) }
        return values
    }

    mutating func json<T: Decodable>(_ type: T.Type) throws(WireError) -> T {
        let bytes = try data()
        do { return try JSONText.decode(type, from: bytes) } catch {
            throw WireError("a member of a frame is not what it should be")
        }
    }

    func end() throws(WireError) {
        guard position == bytes.endIndex else { throw WireError("a frame is too long") }
    }
}

/// Assembles frames from bytes that arrive in pieces.
struct FrameBuffer {
    private var bytes: [UInt8] = []
    private var start = 0
    private let maximumBytes: Int

    init(maximumBytes: Int = Frame.maximumBytes) { self.maximumBytes = maximumBytes }

    mutating func append(_ new: UnsafeRawBufferPointer) {
        if start == bytes.count {
            bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 16)
            start = 0
        } else if start > 1 << 16, start * 2 > bytes.count {
            bytes.removeFirst(start)
            start = 0
        }
        bytes.append(contentsOf: new)
    }

    /// The next frame without its length; nil until the frame is complete.
    /// - Throws: ``WireError`` when the length is 0 or more than allowed: then no later frame can be read.
    mutating func next() throws(WireError) -> ArraySlice<UInt8>? {
        guard bytes.count - start >= 4 else { return nil }
        var length: UInt32 = 0
        for index in 0..<4 { length |= UInt32(bytes[start + index]) << (8 * UInt32(index)) }
        guard length > 0, Int(length) <= maximumBytes else { throw WireError("a frame of \(length) bytes") }
        guard bytes.count - start >= 4 + Int(length) else { return nil }
        defer { start += 4 + Int(length) }
        return bytes[(start + 4)..<(start + 4 + Int(length))]
    }
}
