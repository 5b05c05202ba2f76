import Foundation
import Hoist

/// The files of each video: a folder for each, shared by server and workers.
struct VideoStore: Sendable {
    let root: String

    init(root: String) throws {
        self.root = root
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
    }

    /// Ids come from URLs, so nothing but letters, digits, dots and dashes may reach a path.
    static func isValid(id: String) -> Bool {
        !id.isEmpty && id.utf8.count <= 64 && !id.hasPrefix(".")
            && id.utf8.allSatisfy {
                $0 &- 0x30 < 10 || ($0 | 0x20) &- 0x61 < 26 || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".")
            }
    }

    func folder(_ id: String) -> String { root + "/" + id }
    func input(_ id: String) -> String { folder(id) + "/input" }
    func result(_ id: String, _ name: String) -> String { folder(id) + "/" + name }

    func create(_ id: String) throws {
        try FileManager.default.createDirectory(atPath: folder(id), withIntermediateDirectories: true)
    }

    func remove(_ id: String) { try? FileManager.default.removeItem(atPath: folder(id)) }

    func size(_ path: String) -> Int64 {
        ((try? FileManager.default.attributesOfItem(atPath: path))?[.size] as? NSNumber)?.int64Value ?? 0
    }

    /// Gives a finished file its name. Readers see all of it or none.
    func publish(_ partial: String, as path: String) throws {
        guard rename(partial, path) == 0 else { throw CocoaError(.fileWriteUnknown) }
    }

    func removePartials(of id: String) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder(id))) ?? []
        for name in names where name.contains(".partial.") { removeFile(result(id, name)) }
    }

    func removeFile(_ path: String) { try? FileManager.default.removeItem(atPath: path) }
}
