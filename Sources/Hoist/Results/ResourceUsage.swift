/// What one attempt used, where that can be told: in the process lane.
public struct ResourceUsage: Sendable, Hashable, Codable {
    /// Seconds of processor time, user and system, with that of the programs the job started and waited for.
    public var cpuSeconds: Double
    /// Seconds from the handler's start to its end.
    public var wallSeconds: Double
    /// The most memory that the job's process held while it ran, in bytes; nil when nobody had time to look. What
    /// programs it started held is in it where a memory limit had them watched.
    public var peakMemory: Int?

    public init(cpuSeconds: Double, wallSeconds: Double, peakMemory: Int?) {
        self.cpuSeconds = cpuSeconds
        self.wallSeconds = wallSeconds
        self.peakMemory = peakMemory
    }
}
