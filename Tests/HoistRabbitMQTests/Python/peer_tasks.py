"""A Celery application on RabbitMQ, with results in Redis: the other side of the tests."""
import os
import time

from celery import Celery
from kombu import Exchange, Queue

PREFIX = os.environ["PEER_PREFIX"]
app = Celery("peer", broker=os.environ["PEER_BROKER"], backend=os.environ["PEER_RESULTS"])
QUORUM = os.environ.get("PEER_QUORUM")
arguments = {"x-queue-type": "quorum"} if QUORUM else {}
if os.environ.get("PEER_PRIORITIES"):
    arguments["x-max-priority"] = 10
app.conf.update(
    result_backend_transport_options={"global_keyprefix": PREFIX},
    task_default_queue="mixed",
    task_queues=[Queue("mixed", Exchange("mixed"), routing_key="mixed", queue_arguments=arguments or None)],
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    accept_content=["json", "msgpack", "yaml"],
    worker_send_task_events=True,
    task_send_sent_event=True,
)
if QUORUM:
    app.conf.worker_detect_quorum_queues = True


@app.task(name="mixed.add")
def add(x, y):
    return x + y


@app.task(name="mixed.fail")
def fail(message):
    raise ValueError(message)


@app.task(name="mixed.work", bind=True, max_retries=5)
def work(self, number, fails=0):
    """Fails so many times before it succeeds, wherever each attempt runs."""
    if self.request.retries < fails:
        raise self.retry(countdown=1, exc=RuntimeError("not yet"))
    return {"number": number, "by": "python", "retries": self.request.retries}


@app.task(name="mixed.nap")
def nap(seconds):
    time.sleep(seconds)
    return "rested"
