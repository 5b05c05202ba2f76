#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// What the sun does each day: the events that Celery's `solar` knows.
public enum SunEvent: String, Sendable, Codable, CaseIterable {
    /// The sun's centre rises above 18° below the horizon.
    case dawnAstronomical = "dawn_astronomical"
    /// … 12° below.
    case dawnNautical = "dawn_nautical"
    /// … 6° below.
    case dawnCivil = "dawn_civil"
    /// The upper edge appears, 34' of refraction included.
    case sunrise
    /// The sun is in the south, or north of it in the north.
    case solarNoon = "solar_noon"
    case sunset
    case duskCivil = "dusk_civil"
    case duskNautical = "dusk_nautical"
    case duskAstronomical = "dusk_astronomical"

    /// The altitude of the sun's centre, in degrees; nil for noon.
    fileprivate var altitude: Double? {
        switch self {
        case .dawnAstronomical, .duskAstronomical: -18
        case .dawnNautical, .duskNautical: -12
        case .dawnCivil, .duskCivil: -6
        // 34' of refraction, and 16' for the radius.
        case .sunrise, .sunset: -34.0 / 60 - 0.2666
        case .solarNoon: nil
        }
    }

    fileprivate var isRising: Bool {
        switch self {
        case .dawnAstronomical, .dawnNautical, .dawnCivil, .sunrise: true
        default: false
        }
    }

    /// In words, as "at sunset".
    var words: String { rawValue.split(separator: "_").reversed().joined(separator: " ") }
}

/// When an event of the sun happens at a place. The position of the sun is that of Meeus, Astronomical Algorithms, chapter 25
/// (low accuracy): better than 0.01°.
struct SunTimes {
    var event: SunEvent
    /// Degrees, north and east positive.
    var latitude: Double
    var longitude: Double

    /// The first after a moment, in seconds since 1970; nil when there is none within 370 days.
    func next(after time: Int64) -> Int64? {
        // Of the day before, for its event may be late.
        let day = floorDivision(time, LocalSeconds.perDay) - 1
        for day in day...day + 371 {
            if let found = moment(onDay: day).map({ Int64($0.rounded()) }), found > time { return found }
        }
        return nil
    }

    /// The event that belongs to the solar noon of a day.
    private func moment(onDay day: Int64) -> Double? {
        let noon = transit(near: Double(day) * 86_400 + 43_200 - longitude * 240)
        guard let limit = event.altitude else { return noon }
        // The sun goes round at one height: nothing rises in the course of a day.
        guard abs(latitude) < 89.99 else { return nil }
        let midnight = transit(near: noon + (event.isRising ? -43_200 : 43_200), isUpper: false)
        guard altitude(at: noon) >= limit, altitude(at: midnight) < limit else { return nil }
        // Between the two the height only grows, or only falls.
        var (low, high) = (midnight, noon)
        while abs(high - low) > 0.2 {
            let middle = (low + high) / 2
            if altitude(at: middle) < limit { low = middle } else { high = middle }
        }
        return high
    }

    /// When the sun is in the meridian, above or below the pole.
    private func transit(near time: Double, isUpper: Bool = true) -> Double {
        var time = time
        for _ in 0..<3 {
            var angle = hourAngle(at: time) - (isUpper ? 0 : 180)
            angle -= (angle / 360).rounded() * 360
            time -= angle * 240
        }
        return time
    }

    private func hourAngle(at time: Double) -> Double {
        Self.siderealTime(at: time) + longitude - Self.position(at: time).rightAscension
    }

    private func altitude(at time: Double) -> Double {
        let (rightAscension, declination) = Self.position(at: time)
        let angle = (Self.siderealTime(at: time) + longitude - rightAscension).radians
        let (phi, delta) = (latitude.radians, declination.radians)
        let altitude = asin(sin(phi) * sin(delta) + cos(phi) * cos(delta) * cos(angle))
        // Seen from the ground and not from the centre of the Earth.
        return altitude.degrees - 8.794 / 3600 * cos(altitude)
    }

    private static func centuries(at time: Double) -> Double { (time - 946_728_000) / 86_400 / 36_525 }

    /// Of Greenwich, in degrees.
    private static func siderealTime(at time: Double) -> Double {
        let t = centuries(at: time)
        let angle = 280.46061837 + 360.98564736629 * t * 36_525 + t * t * 0.000387933
        return angle - (angle / 360).rounded(.down) * 360
    }

    /// Right ascension and declination, in degrees.
    private static func position(at time: Double) -> (rightAscension: Double, declination: Double) {
        // Clocks run behind the time of ephemerides by some 70 seconds.
        let t = centuries(at: time + 70)
        let meanLongitude = 280.46646 + t * (36_000.76983 + t * 0.0003032)
        let anomaly = (357.52911 + t * (35_999.05029 - t * 0.0001537)).radians
        let centre =
            (1.914602 - t * (0.004817 + t * 0.000014)) * sin(anomaly) + (0.019993 - t * 0.000101) * sin(2 * anomaly)
            + 0.000289 * sin(3 * anomaly)
        let node = (125.04 - 1934.136 * t).radians
        // What Venus, Jupiter and the Moon do, by the century since 1900.
        let c = t + 1
        let pull =
            0.00134 * cos((153.23 + 22_518.7541 * c).radians) + 0.00154 * cos((216.57 + 45_037.5082 * c).radians)
            + 0.00200 * cos((312.69 + 32_964.3577 * c).radians) + 0.00179 * sin((350.74 + 445_267.1142 * c).radians)
        let longitude = (meanLongitude + centre + pull - 0.00569 - 0.00478 * sin(node)).radians
        let obliquity =
            (23.0 + (26.0 + (21.448 - t * (46.8150 + t * (0.00059 - t * 0.001813))) / 60) / 60 + 0.00256 * cos(node))
            .radians
        let ascension = atan2(cos(obliquity) * sin(longitude), cos(longitude)).degrees
        return (ascension, asin(sin(obliquity) * sin(longitude)).degrees)
    }
}

extension Double {
    fileprivate var radians: Double { self * .pi / 180 }
    fileprivate var degrees: Double { self * 180 / .pi }
}
