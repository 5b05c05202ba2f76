import Foundation
import HTTPTypes
import Hoist
import Hummingbird
import NIOCore

extension Dashboard {
    /// The form in which people log in.
    func loginPage(_ visit: Visit) throws -> Response {
        try loginPage(visit, next: visit.query["next"], mistake: nil, status: .ok)
    }

    private func loginPage(
        _ visit: Visit, next: String?, mistake: String?, status: HTTPResponse.Status
    ) throws -> Response {
        struct View {
            var base: String
            var next: String
            var mistake: String?
        }
        let view = View(base: visit.mountedAt, next: Self.own(next, visit.mountedAt), mistake: mistake)
        return Response(
            status: status, headers: [.contentType: "text/html; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: renderer.render("login", view))))
    }

    func logIn(_ visit: Visit) async throws -> Response {
        let form = try await form(of: visit)
        do {
            let address = guarding.address(of: visit.request.head, peer: visit.peer)
            let (identity, hash) = try await guarding.verified(form["name"] ?? "", form["password"] ?? "", address)
            guard let session = try await store.beginSession(identity.name, hash, at: collectors[0].clock.now) else {
                throw RequestGuard.Refusal(status: .unauthorized, reason: "The name or the password is wrong.")
            }
            return Response(
                status: .seeOther,
                headers: [
                    .location: Self.own(form["next"], visit.mountedAt),
                    .setCookie: guarding.cookie(session, for: visit.request.head, visit.mountedAt),
                ])
        } catch let refusal as RequestGuard.Refusal {
            var response = try loginPage(
                visit, next: form["next"], mistake: refusal.reason,
                // 401 would have the browser ask by itself.
                status: refusal.status == .unauthorized ? .forbidden : refusal.status)
            if let seconds = refusal.retryAfter { response.headers[.retryAfter] = String(seconds) }
            return response
        }
    }

    func logOut(_ visit: Visit) async throws -> Response {
        for session in guarding.sessions(of: visit.request.head, visit.mountedAt) {
            try await store.endSession(session)
        }
        return Response(
            status: .seeOther,
            headers: [
                .location: visit.mountedAt + "/login",
                .setCookie: guarding.cookie(nil, for: visit.request.head, visit.mountedAt),
            ])
    }

    /// A path of the dashboard itself, or its first page: nobody is led elsewhere.
    static func own(_ path: String?, _ base: String) -> String {
        guard let path, path.utf8.count <= 2048, path.hasPrefix(base + "/"), !path.hasPrefix("//"),
            !path.contains("\\"), path.unicodeScalars.allSatisfy({ $0.value > 0x20 && $0.value < 0x7F })
        else { return base + "/" }
        return path
    }
}
