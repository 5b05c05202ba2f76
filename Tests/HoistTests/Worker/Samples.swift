import Foundation
import Hoist
import HoistTesting
import Logging

let quiet = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })

struct Echo: Job, Equatable {
    static let name = "test.echo"
    static let aliases = ["test.echo_old"]
    var text: String
    typealias Output = String
}

struct Work: Job {
    static let name = "test.work"
    var number: Int = 0
}

struct Broken: Error, CustomStringConvertible { var description = "it broke" }
struct Hopeless: Error {}
