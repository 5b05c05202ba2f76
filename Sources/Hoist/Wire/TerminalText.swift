/// Text from outside, made fit for a terminal or a line of a log: what is invisible there, or controls it, is shown as
/// an escape. Names, ids, arguments and errors come from every program that may write to the broker.
package enum TerminalText {
    /// - Returns: the text without control characters (line breaks too), and without characters that turn the direction
    ///   of writing, take no room or separate lines; `\u{1b}` stands where one was.
    package static func line(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isDangerous) else { return text }
        var safe = ""
        for scalar in text.unicodeScalars {
            if isDangerous(scalar) {
                safe += "\\u{" + String(scalar.value, radix: 16) + "}"
            } else {
                safe.unicodeScalars.append(scalar)
            }
        }
        return safe
    }

    private static func isDangerous(_ scalar: Unicode.Scalar) -> Bool {
        if scalar.isASCII { return scalar.value < 0x20 || scalar.value == 0x7F }
        return switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .surrogate: true
        // Hangul fillers are letters that take no room.
        default: [0x115F, 0x1160, 0x3164, 0xFFA0, 0x034F].contains(scalar.value)
        }
    }
}
