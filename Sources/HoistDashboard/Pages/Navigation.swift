/// The entries of the rail at the left.
struct NavigationEntry: Sendable {
    var section: String
    var title: String
    var path: String
    /// The letter that goes there behind `g`.
    var key: String
    var icon: String

    static let all = [
        NavigationEntry(
            section: "overview", title: "Overview", path: "/", key: "o", icon: "M2.5 9.5l3-3.5 2.5 2.5 5-5.5"),
        NavigationEntry(section: "jobs", title: "Jobs", path: "/jobs", key: "j", icon: "M3 4h10M3 8h10M3 12h6"),
        NavigationEntry(
            section: "queues", title: "Queues", path: "/queues", key: "q", icon: "M2.5 5h11M2.5 8h8M2.5 11h5"),
        NavigationEntry(
            section: "workers", title: "Workers", path: "/workers", key: "w",
            icon: "M3 3h4v4H3zM9 3h4v4H9zM3 9h4v4H3zM9 9h4v4H9z"),
        NavigationEntry(
            section: "scheduled", title: "Scheduled", path: "/scheduled", key: "s",
            icon: "M8 2.8a5.2 5.2 0 1 0 .01 0M8 5v3.2l2.2 1.2"),
        NavigationEntry(
            section: "failures", title: "Dead letters", path: "/dead-letters", key: "d",
            icon: "M2.8 4.4h10.4v7.6H2.8zM2.8 4.6L8 8.6l5.2-4"),
        NavigationEntry(
            section: "names", title: "Job names", path: "/names", key: "n", icon: "M3 8.6V3h5.6l4.6 4.6-5.6 5.6z"),
        NavigationEntry(
            section: "audit", title: "Audit log", path: "/audit", key: "a",
            icon: "M4 2.8h8v10.4H4zM6 6h4M6 8.5h4M6 11h2"),
    ]
}

/// What the template of a page is filled with.
struct PageView: Sendable {
    struct Entry: Sendable {
        var title: String
        var link: String
        var isHere: Bool
        var key = ""
        var icon = ""
        var badge: String?
    }

    struct Field: Sendable {
        var name: String
        var value: String
    }

    var title: String
    var base: String
    var home: String
    var liveLink: String
    var navigation: [Entry]
    var search: String
    var hiddenFields: [Field]
    var hasBackends: Bool
    var backends: [Entry]
    var hasRange: Bool
    var ranges: [Entry]
    var live: String
    var liveClass: String
    var banner: String?
    var notice: String?
    /// Who has logged in.
    var user: String?
    var fragments: [Fragment]
    var keyHelp: String
}
