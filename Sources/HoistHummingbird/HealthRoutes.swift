import HTTPTypes
public import Hoist
public import Hummingbird
import NIOCore

extension RouterGroup {
    /// Probes for a worker that runs beside the server. `live` answers 200 while the worker renews its lease, `ready`
    /// while it is ready to work, see `WorkerHealth.isReady`. Otherwise both answer 503.
    ///
    /// These handlers run on threads that jobs can occupy. Probes that must be answered whatever jobs do are the
    /// `WorkerProbes` of HoistProbes.
    public func addHealthRoutes(for worker: Worker) {
        get("live") { _, _ in health(worker.health, isGood: worker.health.isAlive) }
        get("ready") { _, _ in health(worker.health, isGood: worker.health.isReady) }
    }
}

private func health(_ health: WorkerHealth, isGood: Bool) -> Response {
    let bytes = (try? JSONText.encode(health)) ?? []
    return Response(
        status: isGood ? .ok : .serviceUnavailable, headers: [.contentType: "application/json"],
        body: ResponseBody(byteBuffer: ByteBuffer(bytes: bytes)))
}
