import Tracing

/// Spans around enqueue and perform, linked through the message's headers. The tracer that the program has installed
/// decides which headers are written: usually `traceparent` (W3C Trace Context). Without an instrument no header is
/// written.
enum JobTracing {
    private struct HeaderInjector: Injector {
        func inject(_ value: String, forKey key: String, into headers: inout WireValue.Object) {
            headers[key] = .string(value)
        }
    }

    private struct HeaderExtractor: Extractor {
        func extract(key: String, from headers: WireValue.Object) -> String? { headers[key]?.stringValue }
    }

    /// Checks for any instrument, not for a tracer: finding the tracer among all instruments costs too much for each
    /// job.
    private static var isInstrumented: Bool { !(InstrumentationSystem.instrument is NoOpInstrument) }

    static func enqueueing<T>(_ messages: [Message], _ body: ([Message]) async throws -> T) async throws -> T {
        guard let first = messages.first, isInstrumented else { return try await body(messages) }
        var traced = messages
        return try await withSpan("enqueue \(first.jobName)", ofKind: .producer) { span in
            span.attributes["messaging.system"] = "hoist"
            span.attributes["messaging.destination.name"] = first.queue
            span.attributes["messaging.batch.message_count"] = traced.count
            for index in traced.indices {
                InstrumentationSystem.instrument.inject(
                    span.context, into: &traced[index].headers.custom, using: HeaderInjector())
            }
            return try await body(traced)
        }
    }

    static func performing<T>(_ job: JobContext, _ body: () async throws -> T) async throws -> T {
        guard isInstrumented else { return try await body() }
        var context = ServiceContext.topLevel
        InstrumentationSystem.instrument.extract(job.headers, into: &context, using: HeaderExtractor())
        return try await withSpan("perform \(job.name)", context: context, ofKind: .consumer) { span in
            span.attributes["messaging.system"] = "hoist"
            span.attributes["messaging.destination.name"] = job.queue
            span.attributes["messaging.message.id"] = job.id
            return try await body()
        }
    }
}
