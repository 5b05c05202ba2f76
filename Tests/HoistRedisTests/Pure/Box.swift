/// A machine by reference, so that an expectation may call what changes it.
final class Box<Value> {
    private var value: Value

    init(_ value: Value) { self.value = value }

    func with<Result>(_ body: (inout Value) -> Result) -> Result { body(&value) }
}
