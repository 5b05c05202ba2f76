import ArgumentParser
import HoistCommands

@main
struct Main {
    static func main() async { await HoistCommand.main() }
}
