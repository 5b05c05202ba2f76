#if canImport(FoundationEssentials)
public import FoundationEssentials
#else
public import Foundation
#endif

/// A running workflow: all its steps, and what comes out at the end.
public struct WorkflowHandle<Output: Codable & Sendable>: Sendable {
    /// Also the id under which the output is stored: a Python program has it as `AsyncResult(id)`.
    public let id: String
    fileprivate let client: JobClient

    init(id: String, client: JobClient) { (self.id, self.client) = (id, client) }

    private var result: JobHandle<Output> {
        JobHandle((id, false), backend: client.backend, client.configuration)
    }

    /// Waits for the workflow to end.
    /// - Parameter timeout: the longest wait; nil for no limit.
    /// - Returns: what it hands on.
    /// - Throws: as ``JobHandle/output(timeout:)``.
    @discardableResult
    public func output(timeout: Duration? = nil) async throws -> Output { try await result.output(timeout: timeout) }

    /// What the workflow has come to; nil when it is not known, or no longer.
    /// - Throws: ``BackendError``; asking again is safe. ``WorkflowError`` when the stored plan cannot be read.
    public func status() async throws -> WorkflowStatus? {
        try await WorkflowReader(client.backend).status(of: id)
    }

    /// Stops the workflow: no further step starts, steps that wait are cancelled, and running ones are told to stop.
    /// Returns once no step waits any more. Steps that run may take until they notice.
    /// - Returns: false when it had ended, or is not known.
    /// - Throws: ``BackendError``; cancelling again is safe.
    @discardableResult
    public func cancel() async throws -> Bool { try await WorkflowReader(client.backend).cancel(id) }
}

/// As many jobs as there were inputs, and their outputs in order.
public struct GroupHandle<Output: Codable & Sendable>: Sendable {
    public let id: String
    /// The number of jobs.
    public let count: Int
    private let workflow: WorkflowHandle<[Output]>
    private let client: JobClient

    init(_ workflow: WorkflowHandle<[Output]>, size: Int) {
        self.workflow = workflow
        (id, count, client) = (workflow.id, size, workflow.client)
    }

    /// The number of jobs that have ended.
    /// - Throws: ``BackendError``; asking again is safe.
    public var completedCount: Int {
        get async throws {
            if let progress = try await client.backend.groups?.progress(
                of: WorkflowStep(workflow: id, path: [0]).elementsGroup)
            {
                return progress.ended
            }
            return try await client.backend.record(of: id)?.state.hasEnded == true ? count : 0
        }
    }

    /// Waits for all jobs.
    /// - Returns: their outputs, in the order of the inputs.
    /// - Throws: as ``JobHandle/output(timeout:)``, with the failure of the first job that failed.
    public func outputs(timeout: Duration? = nil) async throws -> [Output] {
        try await workflow.output(timeout: timeout)
    }

    /// The handles of the jobs, in the order of the inputs.
    public var jobs: [JobHandle<Output>] {
        (0..<count).map { index in
            JobHandle((WorkflowStep.id(id, [0, index, 0]), true), backend: client.backend, client.configuration)
        }
    }

    /// Each job's number and output, as they finish.
    /// - Throws: the stream ends with an error only when its task is cancelled; what a job failed with is its result.
    public var asTheyFinish: AsyncThrowingStream<(index: Int, output: Result<Output, any Error>), any Error> {
        let jobs = jobs
        return AsyncThrowingStream { continuation in
            let task = Task {
                await withTaskGroup(of: Void.self) { group in
                    // Each waits with a subscription of its own.
                    var waiting = jobs.enumerated().makeIterator()
                    func add() {
                        guard let (index, job) = waiting.next() else { return }
                        group.addTask {
                            let result: Result<Output, any Error>
                            do { result = .success(try await job.output()) } catch { result = .failure(error) }
                            continuation.yield((index, result))
                        }
                    }
                    for _ in 0..<64 { add() }
                    while await group.next() != nil { add() }
                }
                continuation.finish()
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    /// Stops all jobs.
    /// - Returns: false when they had ended.
    /// - Throws: ``BackendError``; cancelling again is safe.
    @discardableResult
    public func cancel() async throws -> Bool { try await workflow.cancel() }
}

/// What a workflow has come to.
public struct WorkflowStatus: Sendable, Codable {
    public var id: String
    /// What a person calls it: by default the name of its last step.
    public var name: String
    public var state: WorkflowState
    public var createdAt: Date
    /// When what it hands on was decided; nil while it runs.
    public var endedAt: Date?
    /// In the order in which they were composed.
    public var steps: [StepStatus]
}

/// What a step of a workflow has come to.
public struct StepStatus: Sendable, Codable {
    public var name: String
    /// The numbers of the steps that it waits for.
    public var parents: [Int]
    /// The state of its job; nil when it has none yet, or none any more.
    public var state: JobState?
    /// The id of its job; nil for a step that is none.
    public var jobID: JobID?
    /// The attempts of its job so far.
    public var attempts: Int
    /// Of a step that runs on each element, how many have ended.
    public var ended: Int?
    /// Of a step that runs on each element, how many elements there are; nil while that is not known.
    public var elements: Int?
    /// The steps that run on each element.
    public var each: [String]?
    /// Why its job failed; nil when it did not.
    public var failure: String?
}

/// Reads and stops workflows, from any program.
package struct WorkflowReader: Sendable {
    private let backend: Backend

    package init(_ backend: Backend) { self.backend = backend }

    private func keeper() throws(BackendError) -> any WorkflowKeeping { try backend.workflowParts().keeping }

    /// - Parameter limit: 1 to 1,000.
    package func list(limit: Int) async throws -> [StoredWorkflow] { try await keeper().workflows(limit: limit) }

    package func status(of id: String) async throws -> WorkflowStatus? {
        guard let workflow = try await keeper().workflow(id) else { return nil }
        let plan = try workflow.plan
        var steps: [StepStatus] = []
        for (number, step) in plan.plan.steps.enumerated() {
            var status = StepStatus(name: step.name, parents: plan.parents[number], attempts: 0)
            switch step.kind {
            case .job:
                let job = plan.jobID(of: number, behind: [], in: id)
                status.jobID = job
                // The record under the id of the workflow waits where the last job does not yet.
                if let record = try await backend.record(of: job),
                    !(job == id && record.queue.isEmpty && !record.state.hasEnded)
                {
                    (status.state, status.attempts) = (record.state, record.attempts)
                    status.failure = record.failure.map { "\($0.type): \($0.message)" }
                }
            case .each(let inner):
                status.each = inner.steps.map(\.name)
                if let progress = try await backend.groups?.progress(
                    of: WorkflowStep(workflow: id, path: [number]).elementsGroup)
                {
                    (status.ended, status.elements) = (progress.ended, progress.size)
                }
            case .gather, .either: break
            }
            steps.append(status)
        }
        return WorkflowStatus(
            id: id, name: workflow.name, state: workflow.state, createdAt: workflow.createdAt,
            endedAt: workflow.endedAt, steps: steps)
    }

    package func cancel(_ id: String) async throws -> Bool {
        let keeping = try keeper()
        guard let workflow = try await keeping.workflow(id), workflow.state == .running || workflow.state == .cancelled
        else { return false }
        // From now on no step that ends starts another.
        try await keeping.end(WorkflowEnd(id, .cancelled))
        // A step that ends now may have read that the workflow runs: what it starts is there at one of the next looks.
        for look in 0..<20 {
            var (waits, runs) = (false, false)
            for job in try await jobs(of: workflow.plan, prefix: [], id) {
                switch try await backend.cancel(job) {
                case .cancelled: waits = true
                case .requested: runs = true
                case .alreadyEnded, .unknown: break
                }
            }
            if !waits, !runs || look > 5 { break }
            if runs { await backend.clock.sleep(for: .milliseconds(50)) }
        }
        let last = try await backend.record(of: id)
        if workflow.endsInJob, last == nil || last?.queue.isEmpty == true && last?.state == .waiting {
            // What was never published has no end of its own.
            var record = JobRecord(id: id, name: workflow.name, queue: "", state: .cancelled)
            record.endedAt = backend.clock.now
            try await backend.results.store([ResultWrite(record, kept: .standard)])
        }
        return workflow.state == .running
    }

    /// The ids that jobs of the workflow may have.
    private func jobs(of plan: IndexedPlan, prefix: [Int], _ id: String) async throws -> [JobID] {
        var jobs: [JobID] = []
        for (number, step) in plan.plan.steps.enumerated() {
            let path = prefix + [number]
            switch step.kind {
            case .job: jobs.append(plan.jobID(of: number, behind: prefix, in: id))
            case .each:
                guard let inner = plan.inner[number],
                    let size = try await backend.groups?.progress(
                        of: WorkflowStep(workflow: id, path: path).elementsGroup)?.size
                else { continue }
                for element in 0..<size { jobs += try await self.jobs(of: inner, prefix: path + [element], id) }
            case .gather, .either: break
            }
        }
        return jobs
    }
}

extension StoredWorkflow {
    /// Whether its output is that of a job, which bears its id.
    fileprivate var endsInJob: Bool {
        guard let plan = try? plan else { return false }
        if case .job = plan.plan.steps[plan.plan.end].kind { return true }
        return false
    }
}
