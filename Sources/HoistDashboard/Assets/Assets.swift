/// The files that pages refer to. All of them lie in this module: a page asks nobody else.
enum Assets {
    struct Asset: Sendable {
        var type: String
        var bytes: [UInt8]
    }

    static let all: [String: Asset] = [
        "hoist.css": Asset(type: "text/css; charset=utf-8", bytes: PackageResources.hoist_css),
        "hoist.js": Asset(type: "text/javascript; charset=utf-8", bytes: PackageResources.hoist_js),
        "stream.js": Asset(type: "text/javascript; charset=utf-8", bytes: PackageResources.stream_js),
        "icon.svg": Asset(type: "image/svg+xml", bytes: PackageResources.icon_svg),
        "inter-latin.woff2": Asset(type: "font/woff2", bytes: PackageResources.inter_latin_woff2),
        "jetbrains-mono-latin.woff2": Asset(
            type: "font/woff2", bytes: PackageResources.jetbrains_mono_latin_woff2),
    ]
}
