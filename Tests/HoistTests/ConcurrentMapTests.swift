import Hoist
import Logging
import Testing

@Suite("Work on several processors") struct ConcurrentMapTests {
    private struct Number: Job {
        static let name = "number"
        var value: Int
        typealias Output = Int
    }

    private struct Refused: Error {}

    @Test("results come in the order of the elements, however many", arguments: [0, 1, 127, 255, 256, 257, 1000, 2049])
    func order(count: Int) async throws {
        let numbers = Array(0..<count)
        #expect(try await numbers.mapOnProcessors { $0 * 2 } == numbers.map { $0 * 2 })
    }

    @Test("an error of one element is the error of all", arguments: [0, 500, 999])
    func failure(at place: Int) async throws {
        await #expect(throws: Refused.self) {
            _ = try await Array(0..<1000).mapOnProcessors { number in
                if number == place { throw Refused() }
                return number
            }
        }
    }

    @Test("many jobs of one call each have the handle in their place, and ids in their order")
    func jobs() async throws {
        let backend = MemoryBackend()
        let client = JobClient(backend, logger: Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }))
        let handles = try await client.enqueue(contentsOf: (0..<6000).map(Number.init))
        var numbers: [Int64?] = []
        for handle in handles {
            let arguments = try await backend.arguments(of: handle.id)
            numbers.append(arguments?.keyword["value"]?.integerValue)
        }
        #expect(numbers == (0..<6000).map(Int64.init))
        #expect(zip(handles, handles.dropFirst()).allSatisfy { $0.id < $1.id })
    }
}
