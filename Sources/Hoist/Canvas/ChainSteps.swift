/// Makes the steps of a chain ready to be published: each with its id, and with the callbacks of the chain.
enum ChainSteps {
    /// - Parameters:
    ///   - chain: a chain.
    ///   - root: the first job of the family; nil where that is the first step.
    ///   - place: the place in a group that the last step takes.
    /// - Returns: the steps, the last one first, as a message carries them. Empty for an empty chain.
    /// - Throws: ``WireError`` when a step is no signature.
    static func prepared(
        _ chain: Signature, root: JobID?, place: SignaturePublisher.Place?
    ) throws(WireError) -> [Signature] {
        var prepared: [Signature] = []
        for step in try opened(chain).reversed() {
            var step = step
            if let root { step["root_id"] = .string(root) }
            if prepared.isEmpty {
                step = step.identified(chain.id ?? JobIdentifier.make())
                step = try step.placed(
                    in: chain["group_id"]?.stringValue ?? place?.group,
                    at: chain["group_index"]?.integerValue ?? place?.index, chord: chain["chord"] ?? place?.chord)
                // A client that waits for the end of the chain waits for each member of the group.
                if step.kind == .group {
                    step = step.with(parts: try step.parts().map { $0.identified(JobIdentifier.make()) })
                }
                try step.add(try Signature.list(chain["link"]), to: "link")
            } else if step.kind == .group, let next = prepared.popLast() {
                // A step behind a group runs when all of the group has ended.
                step = Signature.chord(step, then: next)
            } else {
                step = step.identified(JobIdentifier.make())
            }
            try step.add(try Signature.list(chain["link_error"]), to: "link_error")
            prepared.append(step)
        }
        return prepared
    }

    /// The steps of a chain in their order, with chains inside it opened, one-member groups replaced by their member,
    /// and empty groups left out.
    private static func opened(_ chain: Signature) throws(WireError) -> [Signature] {
        var steps: [Signature] = []
        for step in try chain.parts() {
            switch step.kind {
            case .chain:
                var inner = try opened(step)
                for index in inner.indices {
                    try inner[index].add(try Signature.list(step["link_error"]), to: "link_error")
                }
                if let last = inner.indices.last {
                    try inner[last].add(try Signature.list(step["link"]), to: "link")
                }
                steps += inner
            case .group:
                let members = try step.parts()
                if members.count == 1 { steps.append(members[0]) } else if members.count > 1 { steps.append(step) }
            case .task, .chord: steps.append(step)
            }
        }
        return steps
    }
}
