"""Celery on Redis: jobs a second, enqueued and processed, and with results milliseconds from enqueue to result, median and 99th percentile.

Its default worker (prefork, 2 children), or with BENCH_POOL=solo two workers without children, its fastest setting for short jobs. The time
begins when a tenth of the jobs is done: until then a worker starts its children. Arguments: URL JOBS"""
import os
import signal
import subprocess
import sys
import time

from celery import Celery
from redis import Redis

URL = os.environ.get("BENCH_URL") or sys.argv[1]
RESULTS = os.environ.get("BENCH_RESULTS") == "1"
app = Celery("celery_redis", broker=URL, backend=URL if RESULTS else None)
app.conf.update(task_ignore_result=not RESULTS, worker_prefetch_multiplier=4 if RESULTS else 64)


@app.task(name="noop")
def noop(text, number):
    return number


def measure(jobs):
    redis = Redis.from_url(URL)
    redis.flushdb()
    text = "x" * 32
    with app.producer_or_acquire() as producer:
        begin = time.perf_counter()
        for number in range(jobs):
            noop.apply_async((text, number), producer=producer)
        enqueue = jobs / (time.perf_counter() - begin)
    solo = os.environ.get("BENCH_POOL") == "solo"
    pools = [["-P", "solo", "-n", f"solo{number}@bench"] for number in range(2)] if solo else [["-c", "2"]]
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_redis", "worker", "-l", "critical", "--without-gossip", "--without-mingle"]
            + pool + os.environ.get("BENCH_FLAG", "").split(),
            env=dict(os.environ, BENCH_URL=URL, C_FORCE_ROOT="1"), cwd=os.path.dirname(os.path.abspath(__file__)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        for pool in pools]

    def left():
        return redis.llen("celery") + redis.hlen("unacked")

    while left() > jobs * 0.9:
        time.sleep(0.005)
    begin, measured = time.perf_counter(), left()
    while left():
        time.sleep(0.005)
    process = measured / (time.perf_counter() - begin)
    waits = [0.0]
    if RESULTS:
        waits = []
        for number in range(500):
            begin = time.perf_counter()
            noop.delay(text, number).get(timeout=10)
            waits.append((time.perf_counter() - begin) * 1000)
            time.sleep(0.005)
        waits.sort()
    # No job is left to lose, and a worker that is asked to stop may take its time.
    for worker in workers:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    redis.flushdb()
    return enqueue, waits[len(waits) // 2], waits[len(waits) * 99 // 100], process


if __name__ == "__main__":
    print(*measure(int(sys.argv[2])))
