/// Finds queues by topic.
public protocol TopicRouting: Sendable {
    /// Has `queue` get a copy of every job that is published to a topic of this kind, until ``unbind(queue:from:)``.
    /// Doing it twice is doing it once.
    /// - Throws: ``BackendError``; the binding may be made then, and a retry is safe.
    func bind(queue: String, to topics: TopicBinding) async throws
    /// Undoes ``bind(queue:to:)``. Jobs that are in the queue stay there.
    /// - Throws: ``BackendError``; the binding may be gone then, and a retry is safe.
    func unbind(queue: String, from topics: TopicBinding) async throws
    /// The queues that get a job of this topic, each once.
    /// - Throws: ``BackendError``; asking again is safe.
    func queues(of exchange: String, topic: String) async throws -> [String]
}

/// Broadcasts jobs to the workers that listen.
public protocol JobBroadcasting: Sendable {
    /// Sends a message to every program that listens to the channel at this moment. Nothing of it is stored.
    /// - Returns: the number of programs that heard it.
    /// - Throws: ``BackendError``; the message may have been sent then, and a retry sends it a second time.
    func broadcast(_ message: Message, on channel: String) async throws -> Int
    /// The messages that are sent on a channel from now on, until the stream is given up. A message that is sent while
    /// the connection is lost is missed.
    /// - Throws: ``BackendError`` when the subscription cannot be made; a retry is safe.
    func broadcasts(on channel: String) async throws -> AsyncStream<Message>
}

/// The topics of an exchange that a queue wants, in the field's usual form: words with dots between, `*` for one word,
/// `#` for any text.
///
/// A queue bound to `video.*.done` gets `video.42.done`; one bound to `video.#` gets that and `video.42.failed` as
/// well, but not `video`. That is how Celery's workers on Redis read it.
public struct TopicBinding: Sendable, Hashable {
    public var exchange: String
    public var pattern: String

    public static func topic(_ pattern: String, exchange: String) -> TopicBinding {
        TopicBinding(exchange: exchange, pattern: pattern)
    }

    package func matches(_ topic: String) -> Bool { Self.matches(Array(pattern.utf8)[...], Array(topic.utf8)[...]) }

    private static func matches(_ pattern: ArraySlice<UInt8>, _ topic: ArraySlice<UInt8>) -> Bool {
        // Where the last `#` began: it takes one byte more whenever the rest does not fit.
        var (pattern, topic) = (pattern, topic)
        var retry: (pattern: ArraySlice<UInt8>, topic: ArraySlice<UInt8>)?
        while true {
            if pattern.first == UInt8(ascii: "#") {
                pattern.removeFirst()
                if pattern.isEmpty { return true }
                retry = (pattern, topic)
            } else if pattern.first == UInt8(ascii: "*"), let first = topic.first, first != UInt8(ascii: ".") {
                pattern.removeFirst()
                topic = topic.drop { $0 != UInt8(ascii: ".") }
            } else if let wanted = pattern.first, topic.first == wanted, wanted != UInt8(ascii: "*") {
                pattern.removeFirst()
                topic.removeFirst()
            } else if pattern.isEmpty, topic.isEmpty {
                return true
            } else if let last = retry, !last.topic.isEmpty {
                retry = (last.pattern, last.topic.dropFirst())
                (pattern, topic) = (last.pattern, last.topic.dropFirst())
            } else {
                return false
            }
        }
    }
}

/// Names of queues that mean more than a place to wait.
package enum SpecialQueue {
    private static let directSuffix = ".dq2"

    /// What a worker of this name alone consumes: Celery's `worker_direct`.
    static func direct(to worker: String) -> String { worker + directSuffix }

    /// The part of a queue for jobs that only some workers can run: `media[gpu]`.
    static func labelled(_ queue: String, _ labels: Set<String>) -> String {
        labels.isEmpty ? queue : queue + "[" + labels.sorted().joined(separator: ",") + "]"
    }

    /// Every part of a queue that a worker with these labels can serve, the most special first.
    static func parts(of queue: String, labels: Set<String>) -> [String] {
        let labels = labels.sorted()
        let subsets = (0..<(1 << labels.count)).map { bits in
            Set(labels.indices.filter { bits & (1 << $0) != 0 }.map { labels[$0] })
        }
        return subsets.sorted { $0.count > $1.count }.map { labelled(queue, $0) }
    }

    /// Each subset of a worker's labels is a queue to look at, so there must not be many.
    static func areLabels(_ labels: Set<String>) -> Bool {
        labels.count <= 4 && labels.allSatisfy { text in !text.isEmpty && !text.contains { "[],\n".contains($0) } }
    }

    /// The labels that a part of a queue is for; nil for a whole queue.
    static func labels(of queue: String) -> [String]? {
        guard queue.hasSuffix("]"), let begin = queue.lastIndex(of: "[") else { return nil }
        return queue[queue.index(after: begin)...].dropLast().split(separator: ",").map(String.init)
    }

    package static func isDirect(_ queue: String) -> Bool { queue.hasSuffix(directSuffix) }
}
