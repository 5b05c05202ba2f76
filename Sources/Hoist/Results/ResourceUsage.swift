/// The resources that one attempt used. They can be measured in the process lane only.
public struct ResourceUsage: Sendable, Hashable, Codable {
    /// Seconds of processor time, user and system, including programs that the job started and waited for.
    public var cpuSeconds: Double
    /// Seconds from the handler's start to its end.
    public var wallSeconds: Double
    /// The most memory that the job's process held while it ran, in bytes; nil when there was no time to measure it.
    /// Programs that the job started are included where a memory limit had them watched.
    public var peakMemory: Int?

    public init(cpuSeconds: Double, wallSeconds: Double, peakMemory: Int?) {
        self.cpuSeconds = cpuSeconds
        self.wallSeconds = wallSeconds
        self.peakMemory = peakMemory
    }

    /// Numbers that no attempt can have used, from whatever source they come, are clamped.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        let cpu = try container.decode(Double.self, forKey: .cpuSeconds)
        let wall = try container.decode(Double.self, forKey: .wallSeconds)
        cpuSeconds = Duration(boundedSeconds: cpu).inSeconds
        wallSeconds = Duration(boundedSeconds: wall).inSeconds
        peakMemory = try container.decodeIfPresent(Int.self, forKey: .peakMemory)?.clamped(to: 0...1 << 60)
    }
}
