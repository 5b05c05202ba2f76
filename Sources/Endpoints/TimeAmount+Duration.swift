package import NIOCore

extension NIODeadline {
    /// In the form that state machines take.
    package var nanoseconds: Int64 { Int64(clamping: uptimeNanoseconds) }
}

extension TimeAmount {
    package init(bounded duration: Duration) {
        // At most 366 days: that is as good as no limit, and sums do not overflow.
        let (seconds, attoseconds) = min(max(duration, .zero), .seconds(366 * 86_400)).components
        self = .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}
