import Endpoints

import NIOCore

/// Finds the server that takes commands, and connects to it.
struct PrimaryLocator: Sendable {
    let connector: Connector

    /// - Parameter address: the server to try first, if it is in the list of servers.
    func connect(for purpose: Connector.Purpose, preferring address: ServerAddress? = nil) -> EventLoopFuture<
        RESPConnection
    > {
        let loop = connector.group.next()
        switch connector.configuration.topology {
        case .servers(let addresses), .cluster(let addresses):
            let ordered = addresses.filter { $0 == address } + addresses.filter { $0 != address }
            return firstOf(ordered[...], on: loop) { connector.connect(to: $0, for: purpose) }
        case .sentinels(let addresses, let primary):
            return firstOf(addresses[...], on: loop) { sentinel in
                ask(sentinel, for: primary).flatMap { connector.connect(to: $0, for: purpose, mustBePrimary: true) }
            }
        }
    }

    private func ask(_ sentinel: ServerAddress, for primary: String) -> EventLoopFuture<ServerAddress> {
        connector.connect(to: sentinel, for: .sentinel).flatMap { connection in
            let answer = connection.closeFuture.eventLoop.makePromise(of: ServerAddress.self)
            let command = RESPCommand("SENTINEL GET-MASTER-ADDR-BY-NAME", [.text(primary)])
            connection.send([command], timeout: connector.configuration.connectTimeout) { result in
                connection.close()
                answer.completeWith(
                    Result {
                        let found = try result.get().first
                        if case .error(let error)? = found { throw RESPError(.server, "\(sentinel): \(error.message)") }
                        guard let pair = found?.elements, pair.count == 2, let host = pair[0].text,
                            let port = pair[1].integer,
                            (1...65535).contains(port)
                        else { throw RESPError(.unreachable, "\(sentinel) knows no primary of the name \(primary)") }
                        return .host(host, port: Int(port))
                    })
            }
            return answer.futureResult
        }
    }

    private func firstOf(
        _ addresses: ArraySlice<ServerAddress>, on loop: any EventLoop,
        _ connect: @escaping @Sendable (ServerAddress) -> EventLoopFuture<RESPConnection>
    ) -> EventLoopFuture<RESPConnection> {
        guard let first = addresses.first else {
            return loop.makeFailedFuture(RESPError(.unreachable, "no server is named"))
        }
        let rest = addresses.dropFirst()
        return connect(first).hop(to: loop).flatMapError { error in
            rest.isEmpty ? loop.makeFailedFuture(error) : firstOf(rest, on: loop, connect)
        }
    }
}
