/// Sends jobs to queues by their name, apart from job and call site. The first rule that matches decides.
public struct RoutingRule: Sendable {
    package let queue: @Sendable (_ jobName: String) -> String?

    /// The job with exactly this name.
    public static func name(_ name: String, to queue: String) -> RoutingRule {
        RoutingRule { $0 == name ? queue : nil }
    }

    /// Names that fit a pattern in which `*` stands for any text and `?` for one character: `"media.*"`.
    public static func glob(_ pattern: String, to queue: String) -> RoutingRule {
        let pattern = GlobPattern(pattern, hasChoices: false)
        return RoutingRule { pattern.matches($0) ? queue : nil }
    }

    /// Whatever the function says; nil leaves the decision to the next rule.
    public static func custom(_ queue: @escaping @Sendable (_ jobName: String) -> String?) -> RoutingRule {
        RoutingRule(queue: queue)
    }

    /// Names that contain a match of `expression`.
    public static func regex(_ expression: @escaping @Sendable () -> Regex<Substring>, to queue: String) -> RoutingRule
    {
        RoutingRule { $0.firstMatch(of: expression()) == nil ? nil : queue }
    }
}
