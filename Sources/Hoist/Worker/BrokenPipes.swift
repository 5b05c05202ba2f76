#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What reads a worker's log may end, or its children's pipes may: the worker goes on without. The default of the
/// system would end it at its next line.
func ignoreBrokenPipes() { signal(SIGPIPE, SIG_IGN) }
