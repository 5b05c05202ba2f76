/// The numbers that a field of ``Timetable/when(month:day:weekday:hour:minute:second:in:clockChange:)`` allows: one, several,
/// every so many, or any.
public struct Numbers: Hashable, Sendable, ExpressibleByIntegerLiteral, ExpressibleByArrayLiteral {
    enum Kind: Hashable, Sendable { case any, each(Int), list([Int]) }
    let kind: Kind

    public init(integerLiteral value: Int) { kind = .list([value]) }
    public init(arrayLiteral elements: Int...) { kind = .list(elements) }

    /// - Parameter numbers: one or more.
    public init(_ numbers: some Sequence<Int>) { kind = .list(Array(numbers)) }

    private init(_ kind: Kind) { self.kind = kind }

    /// All that the field can have.
    public static let any = Numbers(.any)

    /// Every so many, from the lowest on.
    /// - Parameter step: 1 or more.
    public static func each(_ step: Int) -> Numbers { Numbers(.each(step)) }

    /// As a cron expression has it.
    var text: String {
        switch kind {
        case .any: "*"
        case .each(let step): "*/\(step)"
        // A term that is missing, and not a field that is.
        case .list([]): ","
        case .list(let numbers): numbers.map(String.init).joined(separator: ",")
        }
    }
}
