"""A Celery application that knows nothing of Hoist: the Python half of the fleet that the dashboard is looked at with."""
import os
import time

from celery import Celery

app = Celery("fleet", broker=os.environ["FLEET_URL"], backend=os.environ["FLEET_URL"])
app.conf.update(
    task_default_queue="python", broker_connection_retry_on_startup=True, worker_hijack_root_logger=False,
    # Without it nobody tells of a task that no worker has yet.
    task_send_sent_event=True,
)


@app.task(name="shop.add")
def add(x, y):
    return x + y


@app.task(name="shop.fail")
def fail(reason):
    raise ValueError(reason)


@app.task(name="shop.nap")
def nap(seconds):
    time.sleep(seconds)
    return seconds
