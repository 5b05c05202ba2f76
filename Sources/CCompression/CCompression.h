#ifndef C_COMPRESSION_H
#define C_COMPRESSION_H

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>

// zlib's and xz's initializers are macros, which Swift cannot call.

/// Reads zlib streams (RFC 1950) and gzip members (RFC 1952), whichever it finds.
static inline int c_inflate_init(z_stream *stream) { return inflateInit2(stream, 15 + 32); }

/// Writes a zlib stream.
static inline int c_deflate_init(z_stream *stream, int level) { return deflateInit(stream, level); }

/// A stream that xz may work on.
static inline lzma_stream c_lzma_stream(void) {
    lzma_stream stream = LZMA_STREAM_INIT;
    return stream;
}

#endif
