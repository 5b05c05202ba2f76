import CProcess

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Facts about processes, from `/proc`. On a system without `/proc` nothing is known.
enum ProcessTable {
    /// The ids of all processes that can be seen; none when too many files are open.
    static func ids() -> [pid_t] {
        guard let folder = opendir("/proc") else { return [] }
        defer { closedir(folder) }
        var found: [pid_t] = []
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if let id = pid_t(name) { found.append(id) }
        }
        return found
    }

    /// The result of the search for a text in the environment of a process.
    enum Mark {
        case found
        /// The text is not in the environment, and will not be.
        case absent
        /// The process is dead. A process that it started last may be missing in a list of ids that was read before.
        case ended
        /// The process is becoming another program (exec): for a moment it has no environment that can be read.
        case unknown
    }

    /// Whether the environment that a process was started with has this text; a fork has the environment of its parent.
    static func mark(_ text: String, in id: pid_t) -> Mark {
        let file = open("/proc/\(id)/environ", O_RDONLY | O_CLOEXEC)
        // A process of another user, or a process that does not permit the access.
        if file < 0, errno == EACCES || errno == EPERM { return .absent }
        if file < 0, errno == EMFILE || errno == ENFILE { return .unknown }
        let bytes = file < 0 ? [] : read(file, upTo: 1 << 18)
        guard bytes.isEmpty else {
            let isFound = bytes.withUnsafeBytes { bytes in
                Array(text.utf8).withUnsafeBytes {
                    hoist_contains(bytes.baseAddress, bytes.count, $0.baseAddress, $0.count) == 1
                }
            }
            return isFound ? .found : .absent
        }
        // vsize, env_start and env_end of proc_pid_stat(5). Dead processes and threads of the kernel have no memory.
        guard let fields = stat(of: id, fields: 49), fields.count > 48, number(fields[20]) != 0 else { return .ended }
        let (start, end) = (number(fields[47]), number(fields[48]))
        return start == end && end != 0 ? .absent : .unknown
    }

    /// All memory of a process that is resident, in bytes; 0 where that is not known.
    static func residentMemory(of id: pid_t) -> Int {
        let numbers = read("/proc/\(id)/statm", upTo: 128).split(separator: UInt8(ascii: " ")).prefix(2).map(number)
        return numbers.count == 2 ? numbers[1] * pageSize : 0
    }

    /// The memory that a process holds for itself, in bytes: what is resident and not shared with others.
    static func memory(of id: pid_t) -> Int {
        // size resident shared text lib data dt, in pages
        let numbers = read("/proc/\(id)/statm", upTo: 128).split(separator: UInt8(ascii: " ")).prefix(3).map(number)
        guard numbers.count == 3 else { return 0 }
        return max(0, numbers[1] - numbers[2]) * pageSize
    }

    /// The same, including memory that the process may share with those it started, in bytes: what a job can hold.
    static func heldMemory(of id: pid_t) -> Int {
        var held = 0
        for line in read("/proc/\(id)/status", upTo: 4096).split(separator: UInt8(ascii: "\n"))
        where line.starts(with: "RssAnon:".utf8) || line.starts(with: "RssShmem:".utf8) {
            held += number(line) * 1024
        }
        return held
    }

    /// The memory of every process group that has one of these ids.
    static func memory(ofGroups groups: Set<pid_t>) -> [pid_t: Int] {
        var sums: [pid_t: Int] = [:]
        for id in ids() {
            guard let group = standing(of: id)?.group, groups.contains(group) else { continue }
            sums[group, default: 0] += heldMemory(of: id)
        }
        return sums
    }

    /// The children of a process that are dead and were not waited for.
    static func zombies(of parent: pid_t) -> Set<pid_t> {
        Set(
            ids().filter { id in
                guard let standing = standing(of: id) else { return false }
                return standing.isZombie && standing.parent == parent
            })
    }

    private static func standing(of id: pid_t) -> (isZombie: Bool, parent: pid_t, group: pid_t)? {
        // state ppid pgrp
        guard let fields = stat(of: id, fields: 3), fields.count > 2 else { return nil }
        let numbers = fields[1...2].map { pid_t(truncatingIfNeeded: number($0)) }
        return (fields[0].first == UInt8(ascii: "Z"), numbers[0], numbers[1])
    }

    /// The first `count` fields after the name in `/proc/ID/stat`, from the third field on; the last element is the
    /// rest.
    private static func stat(of id: pid_t, fields count: Int) -> [ArraySlice<UInt8>]? {
        // The name in parentheses may contain any byte: the fields follow the last closing parenthesis.
        let line = read("/proc/\(id)/stat", upTo: 1024)
        return line.lastIndex(of: UInt8(ascii: ")")).map {
            line[($0 + 1)...].split(separator: UInt8(ascii: " "), maxSplits: count)
        }
    }

    /// The private memory that this process has asked the system for, in bytes.
    static func privateBytes() -> Int {
        let numbers = read("/proc/self/statm", upTo: 128).split(separator: UInt8(ascii: " ")).map(number)
        return numbers.count > 5 ? numbers[5] * pageSize : 0
    }

    /// The most memory that this process has held since it was asked last, in bytes.
    static func takePeakMemory() -> Int {
        var peak = 0, shared = 0
        for line in read("/proc/self/status", upTo: 4096).split(separator: UInt8(ascii: "\n")) {
            if line.starts(with: "VmHWM:".utf8) { peak = number(line) * 1024 }
            if line.starts(with: "RssFile:".utf8) || line.starts(with: "RssShmem:".utf8) {
                shared += number(line) * 1024
            }
        }
        // proc_pid_clear_refs(5): 5 sets the peak back to the current memory.
        let file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC)
        if file >= 0 {
            _ = write(file, "5", 1)
            close(file)
        }
        return max(0, peak - shared)
    }

    private static let pageSize = Int(sysconf(Int32(_SC_PAGESIZE)))

    private static func number(_ digits: ArraySlice<UInt8>) -> Int {
        digits.reduce(0) { $1 >= 48 && $1 <= 57 ? min($0, Int.max / 16) * 10 + Int($1 - 48) : $0 }
    }

    static func read(_ path: String, upTo limit: Int) -> [UInt8] {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        return file >= 0 ? read(file, upTo: limit) : []
    }

    /// Closes the file.
    private static func read(_ file: Int32, upTo limit: Int) -> [UInt8] {
        defer { close(file) }
        return [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            while count < limit {
                let more = Self.read(file, buffer.baseAddress! + count, limit - count)
                if more <= 0 { break }
                count += more
            }
        }
    }

    private static func read(_ file: Int32, _ pointer: UnsafeMutableRawPointer, _ count: Int) -> Int {
        #if canImport(Glibc)
        Glibc.read(file, pointer, count)
        #else
        Darwin.read(file, pointer, count)
        #endif
    }
}
