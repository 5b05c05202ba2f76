/// A place on the wire of a script: its raw value is its number, its case its name.
protocol WirePlace: CaseIterable, RawRepresentable<Int> {}

extension WirePlace {
    /// The name in Lua: `result_key` for `resultKey`.
    var name: String {
        "\(self)".reduce(into: "") { name, character in
            name += character.isUppercase ? "_" + character.lowercased() : String(character)
        }
    }
}

/// The places in the arguments and in the reply of worker_turn.lua, by name. They are declared here for both languages:
/// the order of the cases is the order on the wire, and ``prologue`` tells it to Lua.
enum TurnWire {
    /// The fixed arguments.
    enum Argument: Int, WirePlace {
        case now, worker, brokerDatabase, resultDatabase, resultPrefix, scanLimit, isForced, claimsNumber, claimsEpoch,
            knownVersion, byteLimit, takesSuspects, started, startedSeconds
    }

    /// The columns of the jobs that are simply done.
    enum Done: Int, WirePlace { case id, token, seconds, result }

    /// The places that every other settlement has.
    enum Settlement: Int, WirePlace {
        case id, token, operation, resultKey, seconds, result, queue
    }

    /// Behind a settlement with the operation E or H.
    enum Ending: Int, WirePlace { case kind, keepUntil, record }

    /// Behind a settlement with the operation B.
    enum Return: Int, WirePlace { case list, due, side, record, envelope }

    /// What follows from a settlement, kind m.
    enum FollowingMessage: Int, WirePlace { case id, list, queue, record, envelope, due }

    /// What follows from a settlement, kind r.
    enum FollowingResult: Int, WirePlace { case key, seconds, result }

    enum Progress: Int, WirePlace { case id, token, resultKey, seconds, result }

    /// The places of each job in the reply.
    enum Delivery: Int, WirePlace { case list, id, name, word, record, envelope }

    enum Reply: Int, WirePlace {
        case isAlive, codes, refused, toCancel, dead, nextDue, hasMore, hasStrangers, empty, firstToken, deliveries,
            now, problem, stands, copies
    }

    /// Lua that reads and writes the places by name.
    static let prologue = """
        local at = 1
        local function next_argument()
            local value = ARGV[at]
            at = at + 1
            return value
        end
        \(maker("next_turn", Argument.self))
        \(maker("next_settlement", Settlement.self))
        \(reader("next_ending", Ending.self))
        \(reader("next_return", Return.self))
        \(reader("next_following_message", FollowingMessage.self))
        \(reader("next_following_result", FollowingResult.self))
        \(maker("next_progress", Progress.self))
        \(numbers("done_", Done.self, from: 0))
        local done_columns = \(Done.allCases.count)
        \(numbers("delivery_", Delivery.self, from: 1))
        local function reply_of(reply)
            return { \(Reply.allCases.map { "reply." + $0.name }.joined(separator: ", ")) }
        end

        """

    /// A function that makes a table of the next arguments.
    private static func maker<Place: WirePlace>(
        _ name: String, _ places: Place.Type
    ) -> String {
        let members = places.allCases.enumerated().map { "\($1.name) = ARGV[at + \($0)]" }
        return """
            local function \(name)()
                local t = { \(members.joined(separator: ", ")) }
                at = at + \(members.count)
                return t
            end
            """
    }

    /// A function that reads the next arguments into a table.
    private static func reader<Place: WirePlace>(
        _ name: String, _ places: Place.Type
    ) -> String {
        let members = places.allCases.enumerated().map { "t.\($1.name) = ARGV[at + \($0)]" }
        return """
            local function \(name)(t)
                \(members.joined(separator: "\n    "))
                at = at + \(members.count)
            end
            """
    }

    /// A local number for each place.
    private static func numbers<Place: WirePlace>(
        _ prefix: String, _ places: Place.Type, from first: Int
    ) -> String {
        let names = places.allCases.map { prefix + $0.name }
        let numbers = places.allCases.indices.count
        return "local \(names.joined(separator: ", ")) = "
            + (first..<first + numbers).map(String.init).joined(separator: ", ")
    }
}
