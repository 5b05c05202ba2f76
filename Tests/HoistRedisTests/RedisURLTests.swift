import Hoist
import RESP
import Testing

@testable import HoistRedis

@Suite("URLs of Redis backends")
struct RedisURLTests {
    @Test("what the query says of queues, results and waiting is taken over")
    func options() throws {
        let backend = try RedisBackend(
            url:
                "redis://localhost/1?prefix=shop:&result_prefix=r:&result_db=2&unlabelled_urgency=9&priority_steps=0,5&spin_limit=40"
        )
        let configuration = backend.configuration
        #expect(configuration.keyPrefix == "shop:" && configuration.resultKeyPrefix == "r:")
        #expect(configuration.results?.database == 2)
        #expect(configuration.unlabelledUrgency == 9 && configuration.prioritySteps == [0, 5])
        #expect(backend.client.configuration.spinLimit == .microseconds(40))
    }

    @Test(
        "what makes no sense is refused by name, and the URL is not repeated",
        arguments: [
            "result_db=-1", "unlabelled_urgency=10", "priority_steps=0,,3", "priority_steps=3,0", "spin_limit=1001",
            "spin_limit=soon",
        ])
    func refused(_ option: String) throws {
        let error = #expect(throws: BackendError.self) {
            try RedisBackend(url: "redis://:secret@localhost/0?" + option)
        }
        #expect(error?.code == .misuse)
        let text = error.map { "\($0)" } ?? ""
        #expect(!text.contains("secret"))
        let name = option.prefix { $0 != "=" }.replacing("_", with: " ")
        #expect(text.replacing("_", with: " ").contains(name))
    }
}
