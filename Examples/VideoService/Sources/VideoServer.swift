import Foundation
import HTTPTypes
import Hoist
import HoistHummingbird
import Hummingbird
import Logging
import NIOCore
import _NIOFileSystem

/// The HTTP side: takes videos in, answers at once, and shows their progress.
struct VideoServer: Sendable {
    static let maximumBytes = 4 << 30

    let store: VideoStore
    let jobs: JobClient
    let background: BackgroundTasks
    let logger: Logger

    func router() -> Router<BasicRequestContext> {
        let router = Router(context: BasicRequestContext.self)
        router.get("/") { _, _ in
            Response(
                status: .ok, headers: [.contentType: "text/html; charset=utf-8"],
                body: ResponseBody(byteBuffer: ByteBuffer(string: Page.html)))
        }
        router.post("/upload") { request, context in try await upload(request, context) }
        router.get("/videos/:id/:file") { request, context in try await download(request, context) }
        // Videos are enqueued by an upload alone.
        JobRoutes<BasicRequestContext>(client: jobs, showing: [.waiting, .attempts]) { access in
            access.jobName == ProcessVideo.name && access.verb != .enqueue
        }
        .add(to: router.group("jobs"))
        return router
    }

    /// The body is the file itself. 202 with the job's URL; 413 when it is too large, 415 when it is no video.
    private func upload(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
        try SameOrigin.check(request)
        let declared = request.headers[.contentLength].flatMap { Int($0) }
        if let declared, declared > Self.maximumBytes {
            throw HTTPError(.contentTooLarge, message: "the file is too large")
        }
        let id = UUID().uuidString.lowercased()
        try store.create(id)
        do {
            let received = try await save(request.body, to: store.input(id))
            if let declared, received != declared { throw HTTPError(.badRequest, message: "the upload was cut short") }
            _ = try await MediaTool.describe(store.input(id))
        } catch let error as UnusableVideo {
            store.remove(id)
            throw HTTPError(.unsupportedMediaType, message: error.description)
        } catch {
            store.remove(id)
            throw error
        }
        // Heavy work: to the queue. It survives this server, is retried, and runs where there is room.
        let handle = try await jobs.enqueue(ProcessVideo(videoID: id), .id("video-\(id)"))
        let answer: WireValue = [
            "id": .string(handle.id), "video_id": .string(id), "job": .string("/jobs/\(handle.id)"),
        ]
        let response = Response(
            status: .accepted, headers: [.contentType: "application/json", .location: "/jobs/\(handle.id)"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: answer.description)))
        // Light work: after the response, here. If this server dies now only the notice is lost.
        return response.afterwards { [background, logger] in
            try await background.run("notice") { logger.info("a video has arrived", metadata: ["video": "\(id)"]) }
        }
    }

    @concurrent
    private func save(_ body: RequestBody, to path: String) async throws -> Int {
        try await FileSystem.shared.withFileHandle(
            forWritingAt: FilePath(path), options: .newFile(replaceExisting: false)
        ) { file in
            var offset: Int64 = 0
            for try await chunk in body {
                guard offset + Int64(chunk.readableBytes) <= Int64(Self.maximumBytes) else {
                    throw HTTPError(.contentTooLarge, message: "the file is too large")
                }
                offset += try await file.write(contentsOf: chunk, toAbsoluteOffset: offset)
            }
            return Int(offset)
        }
    }

    private static let types = ["video.mp4": "video/mp4", "poster.jpg": "image/jpeg", "contact.jpg": "image/jpeg"]

    private func download(_ request: Request, _ context: BasicRequestContext) async throws -> Response {
        let id = try context.parameters.require("id")
        let name = try context.parameters.require("file")
        guard VideoStore.isValid(id: id), let type = Self.types[name] else { throw HTTPError(.notFound) }
        let path = store.result(id, name)
        let size = Int(store.size(path))
        guard size > 0 else { throw HTTPError(.notFound, message: "not made yet") }
        var headers: HTTPFields = [.contentType: type, .acceptRanges: "bytes"]
        if let header = request.headers[.range] {
            guard let range = ByteRange.parse(header, size: size) else {
                return Response(status: .rangeNotSatisfiable, headers: [.contentRange: "bytes */\(size)"])
            }
            headers[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound)/\(size)"
            let body = try await FileIO().loadFile(path: path, range: range, context: context)
            return Response(status: .partialContent, headers: headers, body: body)
        }
        return Response(status: .ok, headers: headers, body: try await FileIO().loadFile(path: path, context: context))
    }
}

/// A single byte range of a `Range` header (RFC 9110 §14.1.2).
enum ByteRange {
    static func parse(_ header: String, size: Int) -> ClosedRange<Int>? {
        guard header.hasPrefix("bytes="), !header.contains(",") else { return nil }
        let parts = header.dropFirst("bytes=".count).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        if parts[0].isEmpty {
            guard let suffix = Int(parts[1]), suffix > 0 else { return nil }
            return max(0, size - suffix)...(size - 1)
        }
        guard let first = Int(parts[0]), first < size else { return nil }
        let last = parts[1].isEmpty ? size - 1 : min(Int(parts[1]) ?? -1, size - 1)
        return first <= last ? first...last : nil
    }
}
