import Foundation
import Hoist

/// What was ordered: kept beside the picture, so that a server that starts anew knows what there is.
struct Order: Codable, Sendable {
    /// How a picture is painted.
    enum Mode: String, Codable, Sendable {
        /// By a worker that takes it from the queue.
        case queue
        /// In the process of the server, after the response.
        case background
    }

    var id: String
    var prompt: String
    var size: Int
    var seed: Int64
    var mode: Mode
    var orderedAt: Date
    /// What a picture that a background task has finished says of itself; workers tell it by their output.
    var painting: Painting?
}

/// The files of each picture: a folder for each, shared by server and workers.
struct PictureStore: Sendable {
    let root: URL

    init(root: String) throws {
        self.root = URL(fileURLWithPath: root)
        try FileManager.default.createDirectory(at: self.root, withIntermediateDirectories: true)
    }

    /// Ids come from URLs, so nothing but the letters of the server's own ids may reach a path.
    static func isValid(id: String) -> Bool {
        (1...64).contains(id.utf8.count) && id.utf8.allSatisfy { $0 == UInt8(ascii: "-") || Self.isAlphanumeric($0) }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte)
    }

    func path(_ id: String, _ name: String) -> String { root.appendingPathComponent(id + "/" + name).path }

    func add(_ order: Order) throws {
        try FileManager.default.createDirectory(
            at: root.appendingPathComponent(order.id), withIntermediateDirectories: true)
        try save(order)
    }

    func save(_ order: Order) throws {
        let bytes = try JSONEncoder().encode(order)
        try bytes.write(to: URL(fileURLWithPath: path(order.id, "order.json")), options: .atomic)
    }

    func remove(_ id: String) { try? FileManager.default.removeItem(at: root.appendingPathComponent(id)) }

    /// - Parameter limit: how many, the newest first.
    func orders(limit: Int) -> [Order] {
        let ids = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
        // Ids begin with the time at which they were made.
        return ids.filter(Self.isValid).sorted(by: >).lazy.compactMap(order).prefix(limit).map(\.self)
    }

    func order(_ id: String) -> Order? {
        guard let bytes = FileManager.default.contents(atPath: path(id, "order.json")) else { return nil }
        return try? JSONDecoder().decode(Order.self, from: bytes)
    }

    func has(_ id: String, _ name: String) -> Bool { FileManager.default.fileExists(atPath: path(id, name)) }

    /// Writes a picture. Readers see all of it or none.
    func write(_ pixels: [UInt8], side: Int, _ id: String, _ name: String) throws {
        let unfinished = path(id, "\(name).\(ProcessInfo.processInfo.processIdentifier).tmp")
        try PNGFile.write(pixels, side: side, to: unfinished)
        guard rename(unfinished, path(id, name)) == 0 else {
            throw PNGFile.Failed(description: "\(path(id, name)) could not be replaced")
        }
    }
}
