import Foundation
import Testing

/// README and articles: their code is compiled, their links lead somewhere.
@Suite("Documentation")
struct DocumentationTests {
    private struct Page {
        var path: String
        var lines: [String]
    }

    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private static func files(in folders: [String], ending: String) -> [String] {
        folders.flatMap { folder -> [String] in
            let base = root.appendingPathComponent(folder)
            let found = FileManager.default.enumerator(atPath: base.path)?.compactMap { $0 as? String } ?? []
            return found.filter { $0.hasSuffix(ending) && !$0.hasPrefix(".") && !$0.contains("/.build") }.sorted()
                .map { folder + "/" + $0 }
        }
    }

    private static func page(_ path: String) throws -> Page {
        let text = try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
        return Page(path: path, lines: text.components(separatedBy: "\n"))
    }

    private static let pages: [String] =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] + files(in: ["Sources", "docs", "Examples"], ending: ".md")

    /// The blocks of Swift in a page, without indentation.
    private static func blocks(_ page: Page) -> [(line: Int, code: [String])] {
        var blocks: [(line: Int, code: [String])] = []
        var isInside = false
        for (number, line) in page.lines.enumerated() {
            let text = line.trimmingCharacters(in: .whitespaces)
            if text == "```swift" {
                isInside = true
                blocks.append((number + 1, []))
            } else if text.hasPrefix("```") {
                isInside = false
            } else if isInside, !text.isEmpty {
                blocks[blocks.count - 1].code.append(text)
            }
        }
        return blocks
    }

    /// The code that is compiled beside the tests, one file after the other.
    private static func compiled() throws -> [[String]] {
        let files =
            files(in: ["Tests/Support/DocumentedCode"], ending: ".swift")
            + ["Tests/DocumentationTests/TestingSnippets.swift"]
        return try files.map { path in
            try page(path).lines.map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        }
    }

    @Test("the Swift of README and articles is code that is compiled")
    func code() throws {
        let compiled = try Self.compiled()
        var count = 0
        for path in Self.pages {
            // `scripts/first-steps` builds and runs what this one shows.
            if path.hasSuffix("/FirstSteps.md") { continue }
            for block in Self.blocks(try Self.page(path)) {
                // A manifest, which `scripts/first-steps` has SwiftPM read.
                if block.code.first?.hasPrefix("// swift-tools-version") == true { continue }
                count += 1
                let isFound = compiled.contains { lines in
                    guard let first = block.code.first else { return true }
                    return lines.indices.contains { start in
                        lines[start] == first && lines.count - start >= block.code.count
                            && Array(lines[start..<(start + block.code.count)]) == block.code
                    }
                }
                #expect(isFound, "\(path):\(block.line): no file in Tests/Support/DocumentedCode holds this code")
            }
        }
        #expect(count > 50, "\(count) blocks were found")
    }

    @Test("links within the project lead somewhere")
    func links() throws {
        let pattern = /\]\(([^)\s]+)\)/
        var count = 0
        for path in Self.pages {
            let page = try Self.page(path)
            let folder = Self.root.appendingPathComponent(path).deletingLastPathComponent()
            for (number, line) in page.lines.enumerated() {
                for match in line.matches(of: pattern) {
                    let target = match.1.prefix { $0 != "#" }
                    guard !target.isEmpty, !target.contains(":") else { continue }
                    count += 1
                    let file = folder.appendingPathComponent(String(target))
                    #expect(
                        FileManager.default.fileExists(atPath: file.path), "\(path):\(number + 1) leads to \(target)")
                }
                for match in line.matches(of: /<doc:([A-Za-z]+)>/) {
                    count += 1
                    let article = folder.appendingPathComponent(match.1 + ".md")
                    #expect(
                        FileManager.default.fileExists(atPath: article.path), "\(path):\(number + 1): no \(match.1)")
                }
            }
        }
        #expect(count > 60, "\(count) links were found")
    }

    @Test("every article is found from the first page of its module")
    func topics() throws {
        for path in Self.pages where path.contains("/Documentation.docc/") {
            let parts = path.components(separatedBy: "/")
            let (module, name) = (parts[1], String(parts[parts.count - 1].dropLast(3)))
            guard name != module else { continue }
            let first = try Self.page("Sources/\(module)/Documentation.docc/\(module).md")
            #expect(first.lines.contains { $0.contains("<doc:\(name)>") }, "\(path) is in no list of topics")
        }
    }

    @Test("the README is short")
    func length() throws {
        let words = try Self.page("README.md").lines.joined(separator: "\n").split { $0.isWhitespace }.count
        #expect(words <= 1200, "\(words) words")
    }
}
