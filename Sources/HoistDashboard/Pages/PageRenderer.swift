import Hoist
import Mustache

/// A part of a page that is shown anew when it has changed.
struct Fragment: Sendable {
    /// Unique on its page.
    var id: String
    var html: String
}

/// What a page is made of.
struct PageContent: Sendable {
    var title: String
    /// Which entry of the navigation is lit.
    var section: String
    var fragments: [Fragment]
    /// Whether the page shows charts, whose range can be chosen.
    var hasRange = false
    var search = ""
    var isMissing = false
}

/// Fills the templates.
struct PageRenderer: Sendable {
    private let library: MustacheLibrary

    /// The templates by name. All of them lie in this module.
    static let templates: [String: [UInt8]] = [
        "page": PackageResources.page_mustache, "attention": PackageResources.attention_mustache,
        "charts": PackageResources.charts_mustache, "queues": PackageResources.queues_mustache,
        "names": PackageResources.names_mustache, "jobs": PackageResources.jobs_mustache,
        "rows": PackageResources.rows_mustache, "job": PackageResources.job_mustache,
        "workers": PackageResources.workers_mustache, "worker": PackageResources.worker_mustache,
        "queue": PackageResources.queue_mustache, "failures": PackageResources.failures_mustache,
        "audit": PackageResources.audit_mustache, "state": PackageResources.state_mustache,
        "message": PackageResources.message_mustache, "login": PackageResources.login_mustache,
    ]

    /// - Throws: a template is not well formed.
    init() throws {
        MustacheContentTypes.register(PageText(), named: PageText.name)
        var library = MustacheLibrary()
        for (name, bytes) in Self.templates {
            let text = "{{% CONTENT_TYPE: \(PageText.name) }}" + String(decoding: bytes, as: UTF8.self)
            try library.register(text, named: name)
        }
        self.library = library
    }

    func fragment(_ id: String, _ template: String, _ view: Any) -> Fragment {
        Fragment(id: id, html: render(template, view))
    }

    func render(_ template: String, _ view: Any) -> String { library.render(view, withTemplate: template) ?? "" }
}
