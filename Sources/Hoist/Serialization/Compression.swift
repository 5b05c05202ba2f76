import CCompression

/// The compressions of message bodies, by the names that kombu gives them.
package enum Compression {
    /// kombu's `zlib` and `gzip`, which both write a zlib stream (RFC 1950).
    package static let zlib = "application/x-gzip"
    static let bzip2 = "application/x-bz2"
    static let xz = "application/x-lzma"

    /// Decompresses `bytes`.
    /// - Parameter name: the value of the header `compression`.
    /// - Throws: ``WireError`` when the compression is not accepted, its library cannot be set up, the bytes are
    ///   damaged or cut off, or the output is larger than the limit. Output beyond the limit is never kept.
    package static func decompress(_ bytes: [UInt8], as name: String, limits: WireLimits = .default) throws(WireError)
        -> [UInt8]
    {
        switch name {
        case zlib: return try inflate(bytes, limit: limits.maximumBytes)
        case bzip2: return try bunzip(bytes, limit: limits.maximumBytes)
        case xz: return try unxz(bytes, limit: limits.maximumBytes)
        default: throw WireError("compression \(name) is not accepted by this worker")
        }
    }

    /// A zlib stream of `bytes`, at zlib's own default level.
    package static func deflated(_ bytes: [UInt8]) -> [UInt8] {
        var stream = z_stream()
        guard c_deflate_init(&stream, Z_DEFAULT_COMPRESSION) == Z_OK else { preconditionFailure("zlib has no memory") }
        defer { deflateEnd(&stream) }
        let bound = Int(deflateBound(&stream, uLong(bytes.count)))
        return [UInt8](unsafeUninitializedCapacity: bound) { output, count in
            bytes.withUnsafeBufferPointer { input in
                stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = UInt32(bound)
                let status = deflate(&stream, Z_FINISH)
                precondition(status == Z_STREAM_END, "deflateBound was too small")
            }
            count = bound - Int(stream.avail_out)
        }
    }

    private static func inflate(_ bytes: [UInt8], limit: Int) throws(WireError) -> [UInt8] {
        var stream = z_stream()
        guard c_inflate_init(&stream) == Z_OK else { throw WireError("zlib could not be set up") }
        defer { inflateEnd(&stream) }
        return try unpack(bytes, limit: limit, what: "zlib") { input, output in
            stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
            stream.avail_in = UInt32(input.count)
            stream.next_out = output.baseAddress
            stream.avail_out = UInt32(output.count)
            let status = CCompression.inflate(&stream, Z_NO_FLUSH)
            return Step(
                read: input.count - Int(stream.avail_in), written: output.count - Int(stream.avail_out),
                isEnd: status == Z_STREAM_END,
                isSound: status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR)
        }
    }

    private static func bunzip(_ bytes: [UInt8], limit: Int) throws(WireError) -> [UInt8] {
        var stream = bz_stream()
        guard BZ2_bzDecompressInit(&stream, 0, 0) == BZ_OK else { throw WireError("bzip2 could not be set up") }
        defer { BZ2_bzDecompressEnd(&stream) }
        return try unpack(bytes, limit: limit, what: "bzip2") { input, output in
            input.withMemoryRebound(to: CChar.self) { stream.next_in = UnsafeMutablePointer(mutating: $0.baseAddress) }
            stream.avail_in = UInt32(input.count)
            output.withMemoryRebound(to: CChar.self) { stream.next_out = $0.baseAddress }
            stream.avail_out = UInt32(output.count)
            let status = BZ2_bzDecompress(&stream)
            return Step(
                read: input.count - Int(stream.avail_in), written: output.count - Int(stream.avail_out),
                isEnd: status == BZ_STREAM_END,
                isSound: status == BZ_OK || status == BZ_STREAM_END)
        }
    }

    private static func unxz(_ bytes: [UInt8], limit: Int) throws(WireError) -> [UInt8] {
        var stream = c_lzma_stream()
        // The memory limit also covers the dictionary that the stream requests.
        guard lzma_stream_decoder(&stream, UInt64(max(limit, 1 << 26)) * 2, 0) == LZMA_OK else {
            throw WireError("xz could not be set up")
        }
        defer { lzma_end(&stream) }
        return try unpack(bytes, limit: limit, what: "xz") { input, output in
            stream.next_in = input.baseAddress
            stream.avail_in = input.count
            stream.next_out = output.baseAddress
            stream.avail_out = output.count
            let status = lzma_code(&stream, LZMA_RUN)
            return Step(
                read: input.count - stream.avail_in, written: output.count - stream.avail_out,
                isEnd: status == LZMA_STREAM_END,
                isSound: status == LZMA_OK || status == LZMA_STREAM_END || status == LZMA_BUF_ERROR)
        }
    }

    private struct Step {
        var read: Int
        var written: Int
        var isEnd: Bool
        var isSound: Bool
    }

    /// Decompresses chunk by chunk, so that a small body is refused before it expands beyond the limit.
    private static func unpack(
        _ bytes: [UInt8], limit: Int, what: String,
        _ step: (UnsafeBufferPointer<UInt8>, UnsafeMutableBufferPointer<UInt8>) -> Step
    ) throws(WireError) -> [UInt8] {
        var output: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: min(max(bytes.count * 4, 1024), 1 << 18))
        var consumed = 0
        while true {
            let result = bytes.withUnsafeBufferPointer { input in
                chunk.withUnsafeMutableBufferPointer { step(UnsafeBufferPointer(rebasing: input[consumed...]), $0) }
            }
            guard result.isSound else { throw WireError("the body is no sound \(what) stream") }
            consumed += result.read
            guard output.count + result.written <= limit else {
                throw WireError("the body is larger than the limit of \(limit) bytes once decompressed")
            }
            // zlib cannot expand more than 1,032 times; what does is made to fill memory.
            guard output.count < 8 << 20 || output.count / 1100 <= bytes.count else {
                throw WireError("the body is more than 1,100 times larger once decompressed")
            }
            output.append(contentsOf: chunk[..<result.written])
            if result.isEnd { return output }
            guard result.read > 0 || result.written > 0 else {
                throw WireError("the \(what) stream of the body is cut off")
            }
        }
    }
}
