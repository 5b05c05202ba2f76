#if canImport(FoundationEssentials)
import FoundationEssentials
#else
import Foundation
#endif

/// As JSON, an object with the key that says what it is: `{"cron": "0 3 * * *", "in": "Europe/Berlin"}`,
/// `{"every": 30000000}` (microseconds), `{"sun": "sunset", "latitude": 52.5, "longitude": 13.4}`, `{"rrule": "…"}`,
/// `{"at": [1796083200000000]}` (microseconds since 1970), `{"any": […]}`, `{"excluding": "holidays-de", "of": {…}}`.
///
/// What was written by a timetable with a fault is read as one with the same fault. Only what is no timetable at all is a
/// `DecodingError`.
extension Timetable: Codable {
    private enum CodingKeys: String, CodingKey {
        case cron, zone = "in", gap, repeated, days
        case every, offset, allowsSubsecond
        case sun, latitude, longitude
        case rrule, at, any, excluding, of, instead
    }

    public init(from decoder: any Decoder) throws {
        guard decoder.codingPath.count <= 4 * Self.maximumDepth else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: [], debugDescription: "timetables are nested more than \(Self.maximumDepth) deep"))
        }
        let values = try decoder.container(keyedBy: CodingKeys.self)
        if let text = try values.decodeIfPresent(String.self, forKey: .cron) {
            let change = ClockChange(
                gap: try values.decodeIfPresent(ClockChange.Gap.self, forKey: .gap) ?? .after,
                repeated: try values.decodeIfPresent(ClockChange.Repeated.self, forKey: .repeated) ?? .first)
            self.init(
                .cron(
                    text, zone: try values.decodeIfPresent(String.self, forKey: .zone) ?? "UTC", change,
                    try values.decodeIfPresent(DayRule.self, forKey: .days) ?? .cron))
        } else if let interval = try values.decodeIfPresent(Int64.self, forKey: .every) {
            self.init(
                .every(
                    microseconds: interval, offset: try values.decodeIfPresent(Int64.self, forKey: .offset) ?? 0,
                    allowsSubsecond: try values.decodeIfPresent(Bool.self, forKey: .allowsSubsecond) ?? false))
        } else if let event = try values.decodeIfPresent(SunEvent.self, forKey: .sun) {
            self.init(
                .sun(
                    event, latitude: try values.decode(Double.self, forKey: .latitude),
                    longitude: try values.decode(Double.self, forKey: .longitude)))
        } else if let text = try values.decodeIfPresent(String.self, forKey: .rrule) {
            self.init(.recurrence(text))
        } else if let dates = try values.decodeIfPresent([Int64].self, forKey: .at) {
            self = .at(dates.map(Date.init(microseconds:)))
        } else if let calendar = try values.decodeIfPresent(String.self, forKey: .excluding) {
            self.init(
                .excluding(
                    try values.decode(Timetable.self, forKey: .of), calendar: calendar,
                    try values.decodeIfPresent(Instead.self, forKey: .instead) ?? .skip,
                    zone: try values.decodeIfPresent(String.self, forKey: .zone)))
        } else {
            self.init(.any(try values.decode([Timetable].self, forKey: .any)))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        switch kind {
        case .cron(let text, let zone, let change, let days):
            try values.encode(text, forKey: .cron)
            try values.encode(zone, forKey: .zone)
            if change.gap != .after { try values.encode(change.gap, forKey: .gap) }
            if change.repeated != .first { try values.encode(change.repeated, forKey: .repeated) }
            if days != .cron { try values.encode(days, forKey: .days) }
        case .every(let interval, let offset, let allowsSubsecond):
            try values.encode(interval, forKey: .every)
            if offset != 0 { try values.encode(offset, forKey: .offset) }
            if allowsSubsecond { try values.encode(true, forKey: .allowsSubsecond) }
        case .sun(let event, let latitude, let longitude):
            try values.encode(event, forKey: .sun)
            try values.encode(latitude, forKey: .latitude)
            try values.encode(longitude, forKey: .longitude)
        case .recurrence(let text): try values.encode(text, forKey: .rrule)
        case .dates(let dates): try values.encode(dates, forKey: .at)
        case .any(let parts): try values.encode(parts, forKey: .any)
        case .excluding(let base, let calendar, let instead, let zone):
            try values.encode(calendar, forKey: .excluding)
            try values.encode(base, forKey: .of)
            if instead != .skip { try values.encode(instead, forKey: .instead) }
            try values.encodeIfPresent(zone, forKey: .zone)
        }
    }
}
