"""A Celery worker for the queue `images`. It takes jobs from the same queue as the Swift workers, and paints the same pictures.

    REDIS_URL=redis://localhost:6379/0 IMAGE_DATA=$PWD/image-data celery -A tasks worker --concurrency 2
"""
import hashlib
import os
import time

from celery import Celery

import painter

REDIS = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
DATA = os.environ.get("IMAGE_DATA", "image-data")

app = Celery("tasks", broker=REDIS, backend=REDIS)
app.conf.update(
    task_default_queue="images",
    # The message is acknowledged after the painting, so that a worker that dies gives its picture back.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # A worker takes only what it paints now. The rest of the queue stays there for other workers.
    worker_prefetch_multiplier=1,
    # The message of a worker that was killed goes back to the queue after this many seconds, or up to a minute later.
    # No painting takes as long.
    broker_transport_options={"visibility_timeout": 60},
    broker_connection_retry_on_startup=True,
)


def store(path, data):
    """Writes a file under another name first, so that nobody reads half of it."""
    unfinished = f"{path}.{os.getpid()}.tmp"
    with open(unfinished, "wb") as file:
        file.write(data)
    os.replace(unfinished, path)


@app.task(bind=True, name="images.paint")
def paint(self, *, picture, prompt, size, seed):
    if os.path.basename(picture) != picture or picture in ("", ".", ".."):
        raise ValueError("the id of the picture is not a file name")
    folder = os.path.join(DATA, picture)
    os.makedirs(folder, exist_ok=True)
    begin = time.monotonic()

    def keep(number, side, rgb):
        store(os.path.join(folder, f"preview-{number}.png"), painter.png(side, rgb))

    def report(fraction, number):
        meta = {"fraction": fraction, "message": f"pass {number} of {painter.PASSES}"}
        self.update_state(state="PROGRESS", meta=meta)

    rgb = painter.paint(prompt, seed, size, keep, report)
    store(os.path.join(folder, "image.png"), painter.png(size, rgb))
    return {
        "image": "image.png", "size": size, "seconds": round(time.monotonic() - begin, 3),
        "pixels": hashlib.sha256(rgb).hexdigest(), "painter": "python",
    }
