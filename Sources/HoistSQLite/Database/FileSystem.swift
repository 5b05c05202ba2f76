#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What the system says of the file system that a path is on.
enum FileSystem {
    /// Whether the folder of a file lies on a file system that is mounted read-only.
    static func isReadOnly(_ path: String) -> Bool {
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        var information = statvfs()
        guard statvfs(folder, &information) == 0 else { return false }
        return information.f_flag & UInt(ST_RDONLY) != 0
    }
}
