/// Binds the arguments of a call to the properties of a job, as Python binds them to a signature: positional ones in
/// declaration order, the others by name.
///
/// A synthesized `init(from:)` requests its properties in declaration order, so the n-th requested name is the n-th
/// parameter. A binder serves one decoding only.
final class ArgumentBinder {
    let positionalArguments: [WireValue]
    let keywordArguments: WireValue.Object
    private let defaults: WireValue.Object
    private let ignoresUnknown: Bool
    private var parameters: [String] = []

    init(
        positional: [WireValue], keyword: WireValue.Object, defaults: WireValue.Object = [:],
        ignoresUnknown: Bool = false
    ) {
        self.defaults = defaults
        self.ignoresUnknown = ignoresUnknown
        positionalArguments = positional
        keywordArguments = keyword
    }

    func argument(named name: String) throws -> WireValue? {
        let place = parameters.firstIndex(of: name) ?? parameters.count
        if place == parameters.count { parameters.append(name) }
        guard place < positionalArguments.count else { return keywordArguments[name] ?? defaults[name] }
        guard keywordArguments[name] == nil else {
            throw ArgumentError(parameter: name, problem: "given twice, by place and by name")
        }
        return positionalArguments[place]
    }

    /// Refuses arguments that no parameter requested.
    func finish() throws(ArgumentError) {
        guard !ignoresUnknown else { return }
        guard positionalArguments.count <= parameters.count else {
            throw ArgumentError(
                parameter: nil,
                problem: "takes \(parameters.count) arguments but \(positionalArguments.count) were given by place",
                isUnknown: true)
        }
        if let stranger = keywordArguments.keys.first(where: { !parameters.contains($0) }) {
            throw ArgumentError(
                parameter: stranger, problem: "unexpected: the job has no such parameter", isUnknown: true)
        }
    }
}

/// The arguments of a message do not fit the job. A retry cannot help.
public struct ArgumentError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The wire name of the parameter at fault; nil when the error concerns the arguments as a whole.
    public var parameter: String?
    /// What is wrong, without the value itself.
    public var problem: String

    /// Whether the job does not know the argument, as an older version of it may not.
    package var isUnknown = false

    package init(parameter: String?, problem: String, isUnknown: Bool = false) {
        self.isUnknown = isUnknown
        self.parameter = parameter
        self.problem = problem
    }

    public var description: String {
        parameter.map { "argument \($0): \(problem)" } ?? "arguments: \(problem)"
    }

    /// Rewords the error of a decoder in terms of a call's arguments.
    init(_ error: DecodingError) {
        switch error {
        case .keyNotFound(let key, let context):
            let path = context.codingPath.map(\.stringValue) + [key.stringValue]
            self.init(parameter: path.joined(separator: "."), problem: "missing")
        case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
            let path = context.codingPath.map(\.stringValue).joined(separator: ".")
            self.init(parameter: path.isEmpty ? nil : path, problem: context.debugDescription)
        @unknown default:
            self.init(parameter: nil, problem: "\(error)")
        }
    }
}

/// The arguments of one call, by place and by name.
public struct Arguments: Sendable, Equatable {
    public var positional: [WireValue]
    public var keyword: WireValue.Object

    public init(positional: [WireValue] = [], keyword: WireValue.Object = [:]) {
        self.positional = positional
        self.keyword = keyword
    }

    /// Builds a `Value` from the arguments.
    /// - Throws: ``ArgumentError`` that names the parameter which is missing, mistyped, given twice or unknown. An
    ///   error other than `DecodingError` from the type's own `init(from:)` passes through. A retry cannot help.
    public func bind<Value: Decodable>(to type: Value.Type) throws -> Value {
        try bind(to: type, ArgumentBinder(positional: positional, keyword: keyword))
    }

    private func bind<Value: Decodable>(to type: Value.Type, _ binder: ArgumentBinder) throws -> Value {
        do {
            let value = try Value(from: ValueDecoder(source: .arguments(binder), codingPath: []))
            try binder.finish()
            return value
        } catch let error as DecodingError {
            throw ArgumentError(error)
        }
    }

    /// Builds a job and its input: the first positional argument, or the keyword argument ``Job/inputName``.
    /// - Throws: as ``bind(to:)``; the parameter `input` is missing, or given twice.
    package func bind<J: Job>(job: J.Type) throws -> (job: J, input: J.Input) {
        if let none = NoInput() as? J.Input { return (try bindProperties(of: J.self), none) }
        var rest = self
        let name = J.inputName
        let named = name.flatMap { rest.keyword[$0] }
        let value: WireValue
        if let name, let named {
            // Further positional arguments would be the input again.
            guard positional.isEmpty else {
                throw ArgumentError(parameter: name, problem: "given twice, by place and by name")
            }
            rest.keyword[name] = nil
            value = named
        } else if let first = rest.positional.first {
            rest.positional.removeFirst()
            value = first
        } else {
            throw ArgumentError(
                parameter: name ?? "input", problem: "missing: the job needs an input, as its first argument")
        }
        let input: J.Input
        do { input = try WireDecoder.decode(J.Input.self, from: value) } catch let error as DecodingError {
            var problem = ArgumentError(error)
            problem.parameter = [name ?? "input", problem.parameter].compactMap { $0 }.joined(separator: ".")
            throw problem
        }
        return (try rest.bindProperties(of: J.self), input)
    }

    private func bindProperties<J: Job>(of job: J.Type) throws -> J {
        try bind(
            to: job,
            ArgumentBinder(
                positional: positional, keyword: keyword, defaults: J.defaultArguments,
                ignoresUnknown: J.ignoresUnknownArguments))
    }
}
