/// How many jobs the process lane may have at hand beyond those that its children run: as many as take a few
/// milliseconds, so that children with short jobs need not wait for the backend. Jobs that take longer are not claimed
/// before there is a child for them.
struct ClaimAhead {
    /// What is at hand should be done in so many microseconds.
    private static let horizon: Int64 = 5000
    private static let most = 64

    /// Microseconds that a job takes, the latest ones counting most; nil before the first.
    private var average: Int64?

    mutating func note(run microseconds: Int64) {
        guard let average else {
            self.average = microseconds
            return
        }
        self.average = (average * 7 + microseconds) / 8
    }

    /// Something takes much longer than was thought.
    mutating func noteDelay() { average = max(average ?? 0, Self.horizon * 2) }

    /// For a lane with so many children.
    func count(children: Int) -> Int {
        guard let average else { return 0 }
        return Int(min(Int64(Self.most), Self.horizon / max(1, average))) * children
    }
}
