import Dispatch
import Hoist

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// Carries rings between processes. A process that changes something writes one byte to a file beside the database, and
/// the kernel notifies every process that watches the file (inotify on Linux, a file event on macOS).
///
/// A ring may be lost: when a process dies before it writes, or where the file cannot be watched. Leases are renewed
/// about once a second, and workers look for work then as well.
final class FileDoorbells: Sendable {
    private let ready: Int32
    private let changed: Int32
    // Set once in init. Afterwards only cancel() is called on a source, which Dispatch allows from any thread.
    private nonisolated(unsafe) let sources: [any DispatchSourceProtocol]

    init(path: String, ready readyBell: Doorbell, changed changedBell: Doorbell) {
        let (readyPath, changedPath) = (path + "-ready", path + "-changed")
        ready = open(readyPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        changed = open(changedPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        let queue = DispatchQueue(label: "hoist-doorbells")
        var sources: [any DispatchSourceProtocol] = []
        #if canImport(Glibc)
        for (path, bell) in [(readyPath, readyBell), (changedPath, changedBell)] {
            let descriptor = inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC))
            guard descriptor >= 0 else { continue }
            guard inotify_add_watch(descriptor, path, UInt32(IN_MODIFY)) >= 0 else {
                close(descriptor)
                continue
            }
            let source = DispatchSource.makeReadSource(fileDescriptor: descriptor, queue: queue)
            source.setEventHandler {
                var buffer = [UInt8](repeating: 0, count: 4096)
                while read(descriptor, &buffer, buffer.count) > 0 {}
                bell.ring()
            }
            source.setCancelHandler { close(descriptor) }
            source.resume()
            sources.append(source)
        }
        #else
        for (descriptor, bell) in [(ready, readyBell), (changed, changedBell)] where descriptor >= 0 {
            let source = DispatchSource.makeFileSystemObjectSource(
                fileDescriptor: descriptor, eventMask: .write, queue: queue)
            source.setEventHandler { bell.ring() }
            source.resume()
            sources.append(source)
        }
        #endif
        self.sources = sources
    }

    deinit {
        for source in sources { source.cancel() }
        for descriptor in [ready, changed] where descriptor >= 0 { close(descriptor) }
    }

    func ringReady() { ring(ready) }
    func ringChanged() { ring(changed) }

    private func ring(_ descriptor: Int32) {
        var byte: UInt8 = 0
        pwrite(descriptor, &byte, 1, 0)
    }
}
