import Hoist

/// The heavy work: transcodes a video, makes a poster and a contact sheet, and reports its progress.
struct VideoProcessor: Sendable {
    let store: VideoStore

    func process(_ job: ProcessVideo, _ context: JobContext) async throws -> VideoReport {
        let id = job.videoID
        guard VideoStore.isValid(id: id) else { throw UnusableVideo(description: "not a video id") }
        let input = store.input(id)
        try await context.report(progress: 0, "looking at the file")
        let description = try await MediaTool.describe(input)

        // Named after the delivery, so that a worker that counts as dead and still writes uses other files.
        let suffix = "\(context.attempt)-\(context.lostWorkers).partial"
        let partials = ["video-\(suffix).mp4", "poster-\(suffix).jpg", "contact-\(suffix).jpg"].map {
            store.result(id, $0)
        }
        defer { for partial in partials { store.removeFile(partial) } }

        try await transcode(input, to: partials[0], description, context)
        try await context.report(progress: 0.92, "making a poster")
        try await MediaTool.run(
            "ffmpeg",
            [
                "-y", "-v", "error", "-ss", String(description.duration / 3), "-i", input, "-frames:v", "1", "-vf",
                "scale=960:-2",
                partials[1],
            ])
        try await context.report(progress: 0.95, "making a contact sheet")
        let interval = max(description.duration / 12, 0.04)
        try await MediaTool.run(
            "ffmpeg",
            [
                "-y", "-v", "error", "-i", input, "-frames:v", "1", "-vf",
                "fps=1/\(interval),scale=240:-2,tile=4x3:padding=4:margin=4",
                partials[2],
            ])

        let names = ["video.mp4", "poster.jpg", "contact.jpg"]
        for (partial, name) in zip(partials, names) { try store.publish(partial, as: store.result(id, name)) }
        // An ffmpeg whose worker was killed may have gone on for a while.
        store.removePartials(of: id)
        try await context.report(progress: 1, "done")
        return VideoReport(
            duration: description.duration, width: description.width, height: description.height,
            inputBytes: store.size(input),
            outputBytes: store.size(store.result(id, names[0])), video: names[0], poster: names[1],
            contactSheet: names[2])
    }

    private func transcode(
        _ input: String, to output: String, _ description: MediaTool.Description, _ context: JobContext
    ) async throws {
        var lastPercent = -1
        let arguments = [
            "-y", "-v", "error", "-nostdin", "-progress", "pipe:1", "-i", input, "-vf", "scale='min(1280,iw)':-2",
            "-c:v", "libx264",
            "-preset", "medium", "-crf", "23", "-pix_fmt", "yuv420p", "-c:a", "aac", "-movflags", "+faststart", output,
        ]
        try await MediaTool.run("ffmpeg", arguments) { line in
            // ffmpeg's own progress output: key=value lines, the time in microseconds whatever its name says.
            guard line.hasPrefix("out_time_ms="), let microseconds = Double(line.dropFirst("out_time_ms=".count)) else {
                return
            }
            let fraction = min(1, max(0, microseconds / 1_000_000 / description.duration))
            guard Int(fraction * 100) > lastPercent else { return context.heartbeat() }
            lastPercent = Int(fraction * 100)
            let done = String(Int(fraction * description.duration))
            try await context.report(
                progress: fraction * 0.9, "transcoding, \(done) of \(Int(description.duration)) s")
        }
    }
}
