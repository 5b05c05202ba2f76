import Hoist

enum ChangingAJob {
    struct PaintPoster: Job {
        static let name = "posters.paint"
        static let defaultArguments: WireObject = ["size": 800]
        var title: String
        var size: Int
    }

    struct PaintBanner: Job {
        static let name = "banners.paint"
        static let ignoresUnknownArguments = true
        var title: String
    }

    struct RenderPoster: Job {
        static let name = "posters.render"
        static let aliases = ["posters.paint_old"]
        var title: String
    }
}
