import CProcess

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What the machine and this process use, as monitors show it.
enum MachineLoad {
    /// The load in the last 1, 5 and 15 minutes; three zeros where the system does not tell.
    static var average: [Double] {
        var load = [0.0, 0.0, 0.0]
        guard getloadavg(&load, 3) == 3 else { return [0, 0, 0] }
        return load
    }

    /// `Linux`, `Darwin`.
    static let system: String = {
        var name = utsname()
        guard uname(&name) == 0 else { return "unknown" }
        return withUnsafeBytes(of: &name.sysname) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }()

    /// The resource usage of this process, with the members of Python's `getrusage`.
    static var usage: WireValue {
        var usage = rusage()
        guard getrusage(ownUsage, &usage) == 0 else { return "N/A" }
        func seconds(_ time: timeval) -> WireValue { .double(Double(hoist_microseconds(time)) / 1_000_000) }
        return [
            "utime": seconds(usage.ru_utime), "stime": seconds(usage.ru_stime),
            "maxrss": .integer(Int64(usage.ru_maxrss)),
            "ixrss": .integer(Int64(usage.ru_ixrss)), "idrss": .integer(Int64(usage.ru_idrss)),
            "isrss": .integer(Int64(usage.ru_isrss)), "minflt": .integer(Int64(usage.ru_minflt)),
            "majflt": .integer(Int64(usage.ru_majflt)), "nswap": .integer(Int64(usage.ru_nswap)),
            "inblock": .integer(Int64(usage.ru_inblock)), "oublock": .integer(Int64(usage.ru_oublock)),
            "msgsnd": .integer(Int64(usage.ru_msgsnd)), "msgrcv": .integer(Int64(usage.ru_msgrcv)),
            "nsignals": .integer(Int64(usage.ru_nsignals)), "nvcsw": .integer(Int64(usage.ru_nvcsw)),
            "nivcsw": .integer(Int64(usage.ru_nivcsw)),
        ]
    }

    #if canImport(Glibc)
    private static let ownUsage = RUSAGE_SELF.rawValue
    #else
    private static let ownUsage = RUSAGE_SELF
    #endif

    /// The memory that this process holds, in bytes; where the system does not tell, the most that it has held.
    static var residentMemory: Int {
        let resident = ProcessTable.residentMemory(of: getpid())
        guard resident == 0 else { return resident }
        var usage = rusage()
        guard getrusage(ownUsage, &usage) == 0 else { return 0 }
        return usage.ru_maxrss << 10
    }
}

/// The version of Hoist.
enum HoistVersion {
    static let text: StaticString = "0.1.0"
}
