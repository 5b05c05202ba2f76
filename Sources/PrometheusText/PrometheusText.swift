/// The rules of Prometheus' text format 0.0.4.
enum PrometheusText {
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`
    static func name(_ text: String) -> String { cleaned(text, allowsColon: true) }

    /// `[a-zA-Z_][a-zA-Z0-9_]*`, and not `le`, which histograms have themselves.
    static func labelName(_ text: String) -> String {
        let name = cleaned(text, allowsColon: false)
        return name == "le" ? "le_" : name
    }

    private static func cleaned(_ text: String, allowsColon: Bool) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            let isLetter = ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || scalar == "_"
            let isDigit = ("0"..."9").contains(scalar)
            if isLetter || (isDigit && !result.isEmpty) || (allowsColon && scalar == ":") {
                result.unicodeScalars.append(scalar)
            } else {
                result += "_"
            }
        }
        return result.isEmpty ? "_" : result
    }

    /// `a="b",c="d"`
    static func labels(_ series: PrometheusFactory.Series) -> String {
        series.labels.map { "\($0.name)=\"\(escapedValue($0.value))\"" }.joined(separator: ",")
    }

    static func escapedValue(_ text: String) -> String { escaped(text, withQuotes: true) }
    static func escapedHelp(_ text: String) -> String { escaped(text, withQuotes: false) }

    /// By scalars, for a quote with a mark behind it is one character.
    private static func escaped(_ text: String, withQuotes: Bool) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\"" where withQuotes: result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    /// `hoist_jobs_total` in words, where nobody has said what it is about.
    static func words(of name: String) -> String { name.split(separator: "_").joined(separator: " ") + "." }

    static func line(_ name: String, _ labels: String, _ value: Double) -> String {
        "\(name)\(labels.isEmpty ? "" : "{\(labels)}") \(number(value))\n"
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if let whole = Int64(exactly: value) { return String(whole) }
        return "\(value)"
    }
}
