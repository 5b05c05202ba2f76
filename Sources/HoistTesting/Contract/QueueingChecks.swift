import Hoist

extension BackendContract {
    static let queueing: [Check] = [
        Check("a published job is delivered with what it was published with", needs: [], parts: [.directory]) { bench in
            let message = bench.message("a") { $0.headers.custom["tenant"] = "acme" }
            try bench.expect(try await bench.publish(message) == [.enqueued], "the job is enqueued")
            try bench.expect(try await bench.state("a") == .waiting, "it waits")
            try await bench.join("w")
            let deliveries = try await bench.claim("w")
            try bench.expect(deliveries.count == 1, "one delivery, got \(deliveries.count)")
            let delivered: Message
            switch deliveries[0].payload {
            case .message(let message): delivered = message
            case .envelope(let bytes): delivered = try Message(envelope: bytes)
            }
            try bench.expect(
                delivered.body == message.body && delivered.headers.custom == message.headers.custom, "the same message"
            )
            try bench.expect(deliveries[0].attempt == 1 && deliveries[0].lostWorkers == 0, "the first attempt")
            let record = try await bench.record("a")
            try bench.expect(record.state == .running && record.worker == "worker w", "it runs on worker w: \(record)")
        },
        Check("jobs of one priority come in the order in which they were published") { bench in
            for index in 0..<5 { try await bench.publish(bench.message("\(index)")) }
            try await bench.join("w")
            try bench.expect(
                try await bench.claim("w").map(\.jobID) == ["0", "1", "2", "3", "4"], "first in, first out")
        },
        Check("the most urgent job comes first, 9 before 0, whatever its name") { bench in
            for (id, priority) in [("none", nil), ("five", 5), ("nine", 9), ("zero", 0)] as [(String, Int?)] {
                try await bench.publish(
                    bench.message(id, name: id == "five" ? "other" : "job") { $0.properties.priority = priority })
            }
            try await bench.join("w", names: ["job", "other"])
            let order = try await bench.claim("w", names: ["job", "other"]).map(\.jobID)
            try bench.expect(order == ["nine", "five", "none", "zero"], "by urgency, then age: \(order)")
        },
        Check("ten priorities come in exact order, and jobs of one priority by age", needs: [.tenPriorities]) { bench in
            let published = [4, 9, 0, 7, 2, 5, 1, 8, 3, 6, 9, 0, 5, nil]
            for (index, priority) in published.enumerated() {
                try await bench.publish(
                    bench.message("\(priority.map { "\($0)" } ?? "none") \(index)") {
                        $0.properties.priority = priority
                    })
            }
            try await bench.join("w")
            var order: [String] = []
            // One at a time, so that the order of claims counts and not that of one answer.
            for _ in published { order += try await bench.turn("w", limit: 1).deliveries.map(\.jobID) }
            let expected = [
                "9 1", "9 10", "8 7", "7 3", "6 9", "5 5", "5 12", "4 0", "3 8", "2 4", "1 6", "0 2", "0 11", "none 13",
            ]
            try bench.expect(order == expected, "by urgency, then age: \(order)")
        },
        Check("a claim takes no more than its budget and says that there is more") { bench in
            for index in 0..<3 { try await bench.publish(bench.message("\(index)")) }
            try await bench.join("w")
            let first = try await bench.turn("w", limit: 2)
            try bench.expect(first.deliveries.count == 2 && first.hasMore, "two of three: \(first.deliveries.count)")
            let second = try await bench.turn("w", limit: 2)
            try bench.expect(second.deliveries.count == 1 && !second.hasMore, "the rest")
        },
        Check("lanes and queues keep to their own slots in one turn", needs: [.selectsByName]) { bench in
            for index in 0..<4 {
                try await bench.publish(bench.message("a\(index)", queue: "a"), bench.message("b\(index)", queue: "b"))
            }
            try await bench.join("w", queues: ["a", "b"])
            let result = try await bench.sessions.turn(
                "w",
                WorkerTurn(
                    claims: ["a", "b"].map { Claim(queue: $0, kind: "async", jobNames: ["job"]) },
                    budget: ClaimBudget(kinds: ["async": 3], queues: ["a": 2])))
            try bench.expect(result.deliveries.map(\.jobID) == ["a0", "a1", "b0"], "two of a, one of b")
        },
        Check(
            "a job whose name nobody knows waits, holds nothing up, and says why", needs: [.selectsByName],
            parts: [.directory]
        ) { bench in
            try await bench.publish(bench.message("strange", name: "strange"))
            try await bench.publish(bench.message("known"))
            try await bench.join("w")
            try bench.expect(try await bench.claim("w").map(\.jobID) == ["known"], "only the known one is taken")
            let reason = try await bench.record("strange").waitingReason ?? ""
            try bench.expect(reason.contains("strange"), "the record says why: \(reason)")
            try await bench.join("v", names: ["strange"])
            try bench.expect(
                try await bench.claim("v", names: ["strange"]).count == 1, "a worker that knows it gets it")
        },
        Check("an id is stored once", needs: [.knownIDs]) { bench in
            try bench.expect(
                try await bench.publish(bench.message("a"), bench.message("a")) == [.enqueued, .alreadyEnqueued],
                "the second is known")
            try await bench.join("w")
            try bench.expect(try await bench.claim("w").count == 1, "one delivery")
        },
        Check("two workers never get the same job") { bench in
            for index in 0..<20 { try await bench.publish(bench.message("\(index)")) }
            try await bench.join("v")
            try await bench.join("w")
            async let first = bench.claim("v", 20)
            async let second = bench.claim("w", 20)
            let ids = try await (first + second).map(\.jobID)
            try bench.expect(ids.count == 20 && Set(ids).count == 20, "each once: \(ids.count)")
        },
        Check("publishing rings") { bench in
            let mark = bench.backend.broker.workDoorbell.mark
            try await bench.publish(bench.message("a"))
            try bench.expect(bench.backend.broker.workDoorbell.mark != mark, "the work doorbell was rung")
        },
    ]
}
