@testable import Hoist
import Testing

@Suite("Arguments in Python's notation")
struct PythonLiteralTests {
    @Test("values are read as Python writes them")
    func values() {
        let cases: [(String, [WireValue]?)] = [
            ("", []), ("()", [[]]), ("(1,)", [[1]]), ("('a', 1.5, None, True)", [["a", 1.5, nil, true]]),
            ("(1,) {'k': [False, {'x': -2}]}", [[1], ["k": [false, ["x": -2]]]]), ("{}", [[:]]),
            (#"("it's", 'say \'hi\'')"#, [["it's", "say 'hi'"]]),
            (#"('\n\t\\ \x41 \u00e9 \U0001f600')"#, [["\n\t\\ A é 😀"]]),
        ]
        for (text, expected) in cases { #expect(PythonLiteral.values(in: text) == expected, "\(text)") }
    }

    @Test(
        "what was cut, or is more than plain values, is not read",
        arguments: [
            "('a", "(1, 2", "{'a': 1", "{'a'}", "{1: 2}", "('aaa...)", "(datetime.date(2026, 1, 1),)", "(nan,)",
            "(inf,)",
            "<object at 0x7f>", #"('\x4')"#, #"('\ud800')"#, #"('\q')"#, "(1 2)", "'a' +",
            String(repeating: "[", count: 5000),
        ])
    func refused(_ text: String) {
        #expect(PythonLiteral.values(in: text) == nil)
    }

    @Test("what Hoist writes is read again, and secrets stay hidden")
    func roundTrip() throws {
        let keyword: WireObject = [
            "plain": "a", "quote": "it's", "both": "'\"\\", "lines": "a\nb\u{1}", "number": 1, "half": 0.5, "none": nil,
            "list": [true, ["x": "é"]], "password": "hush",
        ]
        let text =
            ArgumentsText.positional(["x'y", 2]) + " " + ArgumentsText.keyword(keyword, secret: [])
        var record = JobRecord(id: "a", name: "b", queue: "c", state: .waiting, argumentsText: text)
        var expected = keyword
        expected["password"] = "***"
        #expect(record.arguments == Arguments(positional: ["x'y", 2], keyword: expected), "\(text)")
        #expect(record.wireValue["kwargs"]?["quote"] == "it's" && record.wireValue["args"] == ["x'y", 2])
        record.argumentsText = ArgumentsText.keyword(["k": .string(String(repeating: "x", count: 5000))], secret: [])
        #expect(record.arguments == nil && record.wireValue["kwargs"] == nil, "a text that was cut")
    }
}
