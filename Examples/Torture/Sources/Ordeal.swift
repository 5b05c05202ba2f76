import Hoist

/// A job that does one thing, good or bad.
struct Ordeal: Job {
    static let name = "torture.ordeal"
    static let options = JobOptions(hardTimeLimit: .seconds(2), memoryLimit: .mebibytes(256))

    enum Deed: String, Codable, CaseIterable, Sendable {
        case good, trap, segfault, exit, killSelf, spin, ignoreTermination, allocate, garbage, closeChannel, fork,
            daemon, flood, raise
    }

    var deed: Deed
    /// The number that a good job returns doubled.
    var number: Int

    typealias Output = Int
}

extension Ordeal.Deed {
    /// How the job must end.
    struct Fate: Hashable, Sendable {
        var state: JobState
        var kind: JobFailure.Kind?
    }

    var fate: Fate {
        switch self {
        // What a job leaves behind is removed after it; what it prints is read and counted. Neither is a failure.
        case .good, .fork, .daemon, .flood: Fate(state: .succeeded)
        case .trap, .segfault, .exit, .killSelf, .garbage, .closeChannel: Fate(state: .failed, kind: .crashed)
        case .spin, .ignoreTermination: Fate(state: .failed, kind: .timedOut)
        case .allocate: Fate(state: .failed, kind: .memoryExceeded)
        case .raise: Fate(state: .failed, kind: .raised)
        }
    }
}

extension Ordeal {
    /// The same jobs each time: bad ones scattered among good ones.
    static func mixture(of count: Int, bad: Int) -> [Ordeal] {
        let kinds = Ordeal.Deed.allCases.filter { $0 != .good }
        let step = max(1, count / max(1, bad * kinds.count))
        return (0..<count).map { index in
            let number = index / step
            let isBad = index % step == 0 && number < bad * kinds.count
            return Ordeal(deed: isBad ? kinds[number % kinds.count] : .good, number: index)
        }
    }
}
