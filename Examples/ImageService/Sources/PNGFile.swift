import CPNG
import Hoist

/// A PNG file, written by libpng.
enum PNGFile {
    struct Failed: Error, CustomStringConvertible {
        var description: String
    }

    /// - Parameter pixels: red, green and blue of each pixel.
    /// - Throws: ``Failed`` with libpng's words; no file is left where there was none.
    static func write(_ pixels: [UInt8], side: Int, to path: String) throws {
        var image = png_image()
        image.version = png_uint_32(PNG_IMAGE_VERSION)
        (image.width, image.height) = (png_uint_32(side), png_uint_32(side))
        image.format = png_uint_32(PNG_FORMAT_FLAG_COLOR)
        let isWritten = png_image_write_to_file(&image, path, 0, pixels, 0, nil) != 0
        guard !isWritten else { return }
        let reason = withUnsafeBytes(of: image.message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        throw Failed(description: "\(path) could not be written: \(reason)")
    }
}
