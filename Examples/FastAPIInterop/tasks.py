"""The team's Celery application, as it was before Hoist: one heavy task, and a worker of its own for it."""
import json
import os
import subprocess

from celery import Celery

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
DATA = os.environ.get("VIDEO_DATA", "video-data")

app = Celery("tasks", broker=REDIS, backend=REDIS)
app.conf.update(
    task_routes={"tasks.process_video_heavy": {"queue": "media"}},
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="tasks.process_video_heavy")
def process_video_heavy(video_id):
    """Transcodes the video and makes its poster and contact sheet: what the Swift worker does, in Python."""
    folder = os.path.join(DATA, video_id)
    source = os.path.join(folder, "input")
    probe = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height:format=duration", "-of", "json", source],
        check=True, capture_output=True)
    found = json.loads(probe.stdout)
    duration = float(found["format"]["duration"])
    results = {"video": "video.mp4", "poster": "poster.jpg", "contact_sheet": "contact.jpg"}
    steps = [
        (["-i", source, "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"], "video"),
        (["-ss", str(duration / 3), "-i", source, "-frames:v", "1", "-vf", "scale=960:-2"], "poster"),
        (["-i", source, "-frames:v", "1", "-vf", f"fps=1/{max(duration / 12, 0.04)},scale=240:-2,tile=4x3"], "contact_sheet"),
    ]
    for arguments, result in steps:
        subprocess.run(["ffmpeg", "-y", "-v", "error", *arguments, os.path.join(folder, results[result])], check=True)
    return {
        "duration": duration, "width": found["streams"][0]["width"], "height": found["streams"][0]["height"],
        "input_bytes": os.path.getsize(source), "output_bytes": os.path.getsize(os.path.join(folder, results["video"])), **results,
    }
