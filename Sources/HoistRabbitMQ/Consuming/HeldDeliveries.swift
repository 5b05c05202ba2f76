import AMQP
import Hoist

/// The deliveries of a worker that RabbitMQ waits for, and how many more it may send. Pure: no channel, no clock.
///
/// RabbitMQ pushes whatever a queue holds. What the worker has no slot for waits here, and no more is asked for
/// meanwhile.
struct HeldDeliveries {
    struct Held {
        var delivery: AMQPDelivery
        var message: Message
        var queue: String
        /// The number of the channel, whose end is the end of the delivery.
        var channel: Int
        var token: Int64
        /// Whether the worker has it.
        var isHandedOut = false
    }

    private(set) var held: [Int64: Held] = [:]
    /// What has no slot yet, in the order in which it came.
    private var waiting: [Int64] = []
    private var lastToken: Int64 = 0
    private var claims: [Claim] = []
    private var budget = ClaimBudget()

    /// How many batches have been handed to the worker by themselves.
    private(set) var arrivals = 0
    /// Whether the credit lasts until further notice.
    private(set) var isOpen = false

    /// Whether something has come that has no slot yet.
    var isWaiting: Bool { !waiting.isEmpty }

    /// How many deliveries may be unacknowledged at once, until there is new credit; 0 when nothing is to come.
    ///
    /// What the worker settles makes room for others at once, without a round trip.
    private(set) var prefetch = 0

    mutating func add(_ delivery: AMQPDelivery, _ message: Message, queue: String, channel: Int) -> Int64 {
        lastToken += 1
        held[lastToken] = Held(
            delivery: delivery, message: message, queue: queue, channel: channel, token: lastToken)
        waiting.append(lastToken)
        return lastToken
    }

    /// New credit in place of what is left of the old.
    mutating func open(_ turn: WorkerTurn) {
        (claims, budget, isOpen) = (turn.claims, turn.budget, turn.creditLasts)
        let room = Set(claims.map(\.kind)).reduce(0) { $0 + max(0, budget.kinds[$1] ?? 0) }
        // What waits here for a slot of its kind is not to grow without end.
        let isFull = room == 0 || waiting.count >= max(room, 16)
        prefetch = !isOpen ? 0 : isFull ? held.count : held.count + room
    }

    var waitingCount: Int { waiting.count }

    /// The queues that jobs are wanted from.
    var queues: Set<String> { isOpen ? Set(claims.map(\.queue)) : [] }

    /// Nothing more is to come.
    mutating func close() { (isOpen, prefetch) = (false, 0) }

    /// What waits here though nothing more is wanted, or nothing of its queue: it goes back, for others.
    ///
    /// A job of a queue that is at its own limit stays, and is the next: else the order of its queue would be lost.
    func stray(consumed: Set<String>) -> [Held] {
        waiting.compactMap { held[$0] }.filter { !isOpen || !consumed.contains($0.queue) }
    }

    /// What there are slots for.
    mutating func take() -> [Delivery] {
        var taken: [Delivery] = []
        var left: [Int64] = []
        for token in waiting {
            guard let next = held[token] else { continue }
            let claim = claims.first { $0.queue == next.queue && $0.jobNames.contains(next.message.jobName) }
            guard let claim, budget.available(to: claim) > 0 else {
                left.append(token)
                continue
            }
            budget.spend(1, on: claim)
            held[token]?.isHandedOut = true
            taken.append(Self.delivery(next))
        }
        waiting = left
        return taken
    }

    /// Whether a job of one of these claims could start.
    func canTake(_ isMeant: (Claim) -> Bool) -> Bool {
        claims.contains { isMeant($0) && budget.available(to: $0) > 0 }
    }

    mutating func noteArrival() { arrivals += 1 }

    static func delivery(_ held: Held) -> Delivery {
        Delivery(
            jobID: held.message.id, jobName: held.message.jobName, queue: held.queue, payload: .message(held.message),
            attempt: held.message.headers.retries + 1, lostWorkers: held.delivery.message.deliveryCount ?? 0,
            token: held.token)
    }

    mutating func remove(_ token: Int64) -> Held? {
        waiting.removeAll { $0 == token }
        return held.removeValue(forKey: token)
    }

    /// What the worker has, and does not know of.
    func unknown(to holding: Set<Int64>) -> [Held] {
        held.values.filter { $0.isHandedOut && !holding.contains($0.token) }.sorted { $0.token < $1.token }
    }

    /// The channel is over, and with it every delivery.
    /// - Returns: whether the worker has lost a job.
    mutating func lose() -> Bool {
        let hasLost = held.values.contains { $0.isHandedOut }
        (held, waiting) = ([:], [])
        close()
        return hasLost
    }
}
