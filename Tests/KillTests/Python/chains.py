"""A Celery application for the kill tests: workers of its tasks, and a client that starts chains and waits for them."""
import json
import os
import sys
import time

from celery import Celery, chain

app = Celery("chains", broker=os.environ["PEER_BROKER"], backend=os.environ["PEER_BROKER"])
app.conf.update(
    task_default_queue="default", worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
)


@app.task(name="kill.add")
def add(total, number):
    time.sleep(0.02)
    return total + number


def family(result):
    """State and value of each step, the first one first."""
    found = []
    while result is not None:
        found.insert(0, [result.id, result.state, result.result])
        result = result.parent
    return found


if __name__ == "__main__":
    chains, steps = int(sys.argv[1]), int(sys.argv[2])
    results = [chain([add.s(0, 1)] + [add.s(number) for number in range(2, steps + 1)]).apply_async() for _ in range(chains)]
    for result in results:
        result.get(timeout=float(sys.argv[3]))
    print(json.dumps([family(result) for result in results]), flush=True)
