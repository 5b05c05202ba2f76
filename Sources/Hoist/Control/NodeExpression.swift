#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// A regular expression over names of nodes, as kombu's matcher `pcre` has it: anchored at the start of the name.
///
/// It comes from anybody who reaches the broker, and Swift's `Regex` has no limit on the work of a match. So libpcre2
/// does it, which has; it is opened when the first expression comes, for a program that gets none needs no library.
/// Source: pcre2api(3); `kombu/matcher.py`, version 5.6.
enum NodeExpression {
    /// - Returns: false also for what is no expression, is longer than 1,024 bytes or takes too much work; nil where
    ///   libpcre2 is missing.
    static func matches(_ pattern: String, _ node: String) -> Bool? {
        guard let library else { return nil }
        return library.matches(Array(pattern.utf8), Array(node.utf8))
    }

    private static let library = Library()

    /// What is used of libpcre2. It has no state of its own.
    private struct Library: Sendable {
        private typealias Compile =
            @convention(c) (
                UnsafePointer<UInt8>, Int, UInt32, UnsafeMutablePointer<Int32>, UnsafeMutablePointer<Int>,
                OpaquePointer?
            ) -> OpaquePointer?
        private typealias Match =
            @convention(c) (
                OpaquePointer, UnsafePointer<UInt8>, Int, Int, UInt32, OpaquePointer, OpaquePointer?
            ) -> Int32
        private typealias MakeMatchData = @convention(c) (UInt32, OpaquePointer?) -> OpaquePointer?
        private typealias MakeContext = @convention(c) (OpaquePointer?) -> OpaquePointer?
        private typealias SetLimit = @convention(c) (OpaquePointer, UInt32) -> Int32
        private typealias Free = @convention(c) (OpaquePointer?) -> Void

        private let compile: Compile
        private let match: Match
        private let makeMatchData: MakeMatchData
        private let makeContext: MakeContext
        private let limits: [(set: SetLimit, limit: UInt32)]
        private let freeCode: Free
        private let freeMatchData: Free
        private let freeContext: Free

        private static let longestPattern = 1024
        /// PCRE2_ANCHORED, PCRE2_UTF and PCRE2_NEVER_BACKSLASH_C.
        private static let options: UInt32 = 0x8000_0000 | 0x0008_0000 | 0x0010_0000
        /// Calls of its inner matching function, which keep a match under 10 ms; how deep they nest; KiB of memory.
        private static let work: [(function: String, limit: UInt32)] = [
            ("match", 50_000), ("depth", 1_000), ("heap", 1_024),
        ]

        init?() {
            #if canImport(Darwin)
            let names = ["libpcre2-8.dylib", "/opt/homebrew/lib/libpcre2-8.dylib", "/usr/local/lib/libpcre2-8.dylib"]
            #else
            let names = ["libpcre2-8.so.0", "libpcre2-8.so"]
            #endif
            guard let handle = names.lazy.compactMap({ dlopen($0, RTLD_NOW | RTLD_LOCAL) }).first else { return nil }
            func function<Function>(_ name: String, as: Function.Type) -> Function? {
                dlsym(handle, "pcre2_\(name)_8").map { unsafeBitCast($0, to: Function.self) }
            }
            guard let compile = function("compile", as: Compile.self), let match = function("match", as: Match.self),
                let makeMatchData = function("match_data_create", as: MakeMatchData.self),
                let makeContext = function("match_context_create", as: MakeContext.self),
                let freeCode = function("code_free", as: Free.self),
                let freeMatchData = function("match_data_free", as: Free.self),
                let freeContext = function("match_context_free", as: Free.self)
            else { return nil }
            limits = Self.work.compactMap { name, limit in
                function("set_\(name)_limit", as: SetLimit.self).map { ($0, limit) }
            }
            guard limits.count == Self.work.count else { return nil }
            (self.compile, self.match, self.makeMatchData, self.makeContext, self.freeCode) = (
                compile, match, makeMatchData, makeContext, freeCode
            )
            (self.freeMatchData, self.freeContext) = (freeMatchData, freeContext)
        }

        func matches(_ pattern: [UInt8], _ subject: [UInt8]) -> Bool {
            guard pattern.count <= Self.longestPattern, subject.count <= Self.longestPattern else { return false }
            var (problem, place) = (Int32(0), 0)
            guard let code = compile(pattern, pattern.count, Self.options, &problem, &place, nil) else { return false }
            defer { freeCode(code) }
            guard let data = makeMatchData(1, nil) else { return false }
            defer { freeMatchData(data) }
            guard let context = makeContext(nil) else { return false }
            defer { freeContext(context) }
            for (set, limit) in limits { _ = set(context, limit) }
            return match(code, subject, subject.count, 0, 0, data, context) >= 0
        }
    }
}
