"""huey on SQLite as shipped: the same no-op job, a 32-byte string and an int, results kept.

Prints enqueued and processed jobs per second. The consumer is huey's own, with two worker threads; the last job stops the clock.
"""
import os
import sys
import threading
import time

from huey import SqliteHuey
from huey.consumer import Consumer

huey = SqliteHuey("bench", filename=sys.argv[1], results=True)
count = int(sys.argv[2])
finished = threading.Event()
done = 0


@huey.task()
def noop(text, number):
    return number


@huey.post_execute()
def counted(task, value, exception):
    global done
    done += 1
    if done == count:
        finished.set()


text = "x" * 32
start = time.monotonic()
for number in range(count):
    noop(text, number)
enqueued = count / (time.monotonic() - start)

consumer = Consumer(huey, workers=2, worker_type="thread", periodic=False, initial_delay=0.01, backoff=1.0, max_delay=0.01)
start = time.monotonic()
consumer.start()
finished.wait()
elapsed = time.monotonic() - start
print(enqueued, count / elapsed, flush=True)
os._exit(0)
