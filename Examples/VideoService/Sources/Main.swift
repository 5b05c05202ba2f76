import Subprocess
@main enum M { static func main() {} }
