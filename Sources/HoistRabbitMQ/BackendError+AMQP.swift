import AMQP
import Hoist

extension BackendError {
    /// - Parameter what: what was being done, on what.
    init(_ error: AMQPError, doing what: String) {
        let code: Code =
            switch error.code {
            case .timedOut: .timedOut
            case .blocked: .busy
            case .refused: .full
            case .misuse, .invalidURL: .misuse
            case .protocolViolation: .incompatible
            default: .unavailable
            }
        self.init(code, "RabbitMQ could not \(what): \(error.message)", isRetrySafe: !error.mayHaveRun)
    }
}
