"""A Celery application as its users write one: the other side of the tests of the Redis backend."""
import os
import time

from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue
from kombu.common import Broadcast

PREFIX = os.environ.get("PEER_PREFIX", "")
app = Celery("peer", broker=os.environ["PEER_BROKER"], backend=os.environ.get("PEER_RESULTS", os.environ["PEER_BROKER"]))
app.conf.update(
    broker_transport_options={"global_keyprefix": PREFIX, "visibility_timeout": float(os.environ.get("PEER_VISIBILITY", "3600"))},
    result_backend_transport_options={"global_keyprefix": PREFIX.rstrip(":") + ":"} if PREFIX else {},
    task_default_queue="mixed",
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    accept_content=["json", "msgpack", "yaml"],
    worker_send_task_events=False,
    # A topic queue, and a broadcast queue of which every worker has its own: each queue gets its copy.
    task_queues=[
        Queue("mixed"),
        Queue("py-audit", Exchange("events", type="topic"), routing_key="video.*.done"),
        Broadcast("news", queue="py-news"),
    ],
)


SLOW_RETRY = float(os.environ.get("PEER_SLOW_RETRY", "0"))
if SLOW_RETRY:
    # A worker that is held up between looking at a result and storing that its task is to be retried.
    store = app.backend._set_with_state

    def store_late(key, value, state):
        if state == "RETRY":
            time.sleep(SLOW_RETRY)
        store(key, value, state)
        print(f"stored {state}", flush=True)

    app.backend._set_with_state = store_late


@app.task(name="mixed.add")
def add(x, y):
    return x + y


@app.task(name="mixed.total")
def total(numbers):
    return sum(numbers)


@app.task(name="mixed.fail")
def fail(message):
    raise ValueError(message)


@app.task(name="mixed.work", bind=True, max_retries=5)
def work(self, number, fails=0):
    """Fails so many times before it succeeds, wherever each attempt runs."""
    if self.request.retries < fails:
        # A Celery worker stores RETRY after it has published the retry, and overwrites what another Celery worker has
        # stored by then. A worker that is held up for as long as the countdown loses the result.
        raise self.retry(countdown=0.05 if SLOW_RETRY else 1, exc=RuntimeError("not yet"))
    return {"number": number, "by": "python", "retries": self.request.retries}


@app.task(name="mixed.nap")
def nap(seconds):
    time.sleep(seconds)
    return "rested"


@app.task(name="mixed.steps", bind=True)
def steps(self, total, seen=None):
    """Reports each step; with a list's name, waits until somebody has seen it."""
    for step in range(total):
        self.update_state(state="PROGRESS", meta={"current": step + 1, "total": total})
        if seen:
            app.backend.client.blpop(PREFIX + seen, timeout=10)
        else:
            time.sleep(0.1)
    return total


@app.task(name="mixed.hear", ignore_result=True)
def hear(word):
    """Leaves a trace of having been performed here."""
    app.backend.client.rpush(PREFIX + "heard", word + " by python")


@app.task(name="mixed.rescue")
def rescue(failed):
    return "rescued " + failed
