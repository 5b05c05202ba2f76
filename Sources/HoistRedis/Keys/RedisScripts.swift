import RESP

/// The scripts, each with what all of them share in front.
enum RedisScripts {
    static let enqueue = RESPScript(String(decoding: PackageResources.enqueue_lua, as: UTF8.self))
    static let take = RESPScript(String(decoding: PackageResources.take_lua, as: UTF8.self))
    static let publish = script(PackageResources.limits_lua + PackageResources.publish_lua)
    static let exchange = script(PackageResources.limits_lua + PackageResources.exchange_lua)
    static let close = script(PackageResources.close_lua)
    static let limit = script(PackageResources.limit_lua)
    static let renew = script(PackageResources.renew_lua)
    static let bury = script(PackageResources.bury_lua)
    static let locate = script(PackageResources.locate_lua)
    static let amend = script(PackageResources.amend_lua)
    static let revive = script(PackageResources.revive_lua)
    static let forget = script(PackageResources.forget_lua)
    static let purge = script(PackageResources.purge_lua)
    static let sweep = script(PackageResources.sweep_lua)
    static let expire = script(PackageResources.expire_lua)
    static let cancel = script(PackageResources.cancel_lua)
    static let mark = script(PackageResources.mark_lua)
    static let store = script(PackageResources.store_lua)
    static let mend = script(PackageResources.mend_lua)
    static let restore = script(PackageResources.restore_lua)

    private static func script(_ source: [UInt8]) -> RESPScript {
        RESPScript(String(decoding: PackageResources.common_lua + source, as: UTF8.self))
    }
}
