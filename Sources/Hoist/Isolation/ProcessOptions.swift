import CProcess

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// How a worker keeps the children of its process lane.
public struct ProcessOptions: Sendable {
    /// The program that children run; nil for the worker's own executable, which is the usual choice. The program must
    /// call ``Worker/run()`` with the same handlers.
    public var executable: String?
    /// The arguments of the program; nil for the arguments of the worker's own process.
    public var arguments: [String]?
    /// Added to the environment of the worker.
    public var environment: [String: String]
    /// The time from asking a job to stop to stopping it by force, when it does not comply; and again from SIGTERM to
    /// SIGKILL. 2 seconds by default.
    public var grace: Duration
    /// How long a child may take to get ready. 10 seconds by default.
    public var startTimeout: Duration
    /// A child that has done this number of jobs is replaced; nil for never, the default.
    public var recycleAfterJobs: Int?
    /// A child that holds this number of bytes of memory or more after a job is replaced; nil for never. 512 MiB by
    /// default.
    public var recycleAboveMemory: ByteCount?
    /// A child is replaced when it is this old and has no job; nil for never, the default.
    public var recycleAfterAge: Duration?
    /// A job becomes a dead letter, whatever its retry policy says, after this number of deaths: children that crashed
    /// with the job or outgrew its memory, or workers that died with it. A job that was stopped because of its time is
    /// left to the policy. 3 by default, 1 or more. For workers each backend has a setting of its own,
    /// `maximumLostWorkers`.
    public var maximumDeaths: Int

    public init(
        executable: String? = nil, arguments: [String]? = nil, environment: [String: String] = [:],
        grace: Duration = .seconds(2),
        startTimeout: Duration = .seconds(10), recycleAfterJobs: Int? = nil,
        recycleAboveMemory: ByteCount? = .mebibytes(512),
        recycleAfterAge: Duration? = nil, maximumDeaths: Int = 3
    ) {
        self.executable = executable
        self.arguments = arguments
        self.environment = environment
        self.grace = grace
        self.startTimeout = startTimeout
        self.recycleAfterJobs = recycleAfterJobs
        self.recycleAboveMemory = recycleAboveMemory
        self.recycleAfterAge = recycleAfterAge
        self.maximumDeaths = max(1, maximumDeaths)
    }

    /// The program of a worker's children, with arguments and environment.
    func program(key: String, shape: BackendShape, worker: String) -> SpawnedProcess.Program {
        var variables = Self.inheritedEnvironment
        // A readable backtrace, without the parts that fill pages. A value that is set already has precedence.
        if variables["SWIFT_BACKTRACE"] == nil {
            variables["SWIFT_BACKTRACE"] =
                "enable=yes,color=no,interactive=no,threads=crashed,registers=none,images=none,sanitize=no,output-to=stderr"
        }
        variables.merge(environment) { $1 }
        variables[ChildChannel.variable] = nil
        return SpawnedProcess.Program(
            path: executable ?? Executable.path, arguments: arguments ?? Array(CommandLine.arguments.dropFirst()),
            environment: [ChildChannel.environment(key: key, shape: shape, worker: worker)]
                + variables.map { "\($0.key)=\($0.value)" })
    }

    var settings: ChildPoolMachine.Settings {
        ChildPoolMachine.Settings(
            grace: grace.inMicroseconds, startTimeout: startTimeout.inMicroseconds, recycleAfterJobs: recycleAfterJobs,
            recycleAboveMemory: recycleAboveMemory?.bytes, recycleAfterAge: recycleAfterAge?.inMicroseconds)
    }

    private static var inheritedEnvironment: [String: String] {
        var variables: [String: String] = [:]
        for entry in Executable.environment {
            guard let end = entry.firstIndex(of: "=") else { continue }
            variables[String(entry[..<end])] = String(entry[entry.index(after: end)...])
        }
        return variables
    }
}

/// The executable of this process.
package enum Executable {
    /// As the program was called, without its folder.
    package static let name = CommandLine.arguments.first?.split(separator: "/").last.map(String.init) ?? "hoist"

    /// The path of the executable. When the file was replaced meanwhile, a path that still leads to the running
    /// version: children must have the version of their worker.
    package static var path: String {
        #if os(Linux)
        let own = "/proc/self/exe"
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        guard readlink(own, &buffer, buffer.count - 1) > 0 else { return own }
        let path = String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        var (mine, there) = (stat(), stat())
        guard stat(own, &mine) == 0, stat(path, &there) == 0, mine.st_ino == there.st_ino, mine.st_dev == there.st_dev
        else { return own }
        return path
        #else
        var buffer = [CChar](repeating: 0, count: 4096)
        var size = UInt32(buffer.count)
        guard _NSGetExecutablePath(&buffer, &size) == 0 else { return CommandLine.arguments[0] }
        return String(decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        #endif
    }

    /// The current environment, as `NAME=VALUE`.
    package static var environment: [String] {
        var entries: [String] = []
        var position = hoist_environment()
        while let entry = position?.pointee {
            entries.append(String(cString: entry))
            position = position?.advanced(by: 1)
        }
        return entries
    }
}
