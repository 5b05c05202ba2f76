"""huey on Redis, with two worker processes and results off. Prints jobs a second enqueued one at a time (a 32-byte string and an int), and
processed with 100 KB arguments. Arguments: URL SINGLE LARGE, the numbers of jobs."""
import os
import signal
import subprocess
import sys
import time

from huey import RedisHuey
from redis import Redis

URL = os.environ.get("BENCH_URL") or sys.argv[1]
huey = RedisHuey("bench", url=URL, results=False)
redis = Redis.from_url(URL)


@huey.task()
def noop(text, number):
    return number


def enqueue(count, size):
    redis.flushdb()
    text = "x" * size
    begin = time.monotonic()
    for number in range(count):
        noop(text, number)
    return count / (time.monotonic() - begin)


def process(count):
    """From the first job that is taken to the last one."""
    environment = {**os.environ, "BENCH_URL": URL, "PYTHONPATH": os.path.dirname(__file__)}
    worker = subprocess.Popen([sys.executable, "-m", "huey.bin.huey_consumer", "huey_redis.huey", "-w", "2", "-k", "process", "-n"],
                              env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    queue = huey.storage.queue_key
    while redis.llen(queue) == count:
        time.sleep(0.0005)
    begin = time.monotonic()
    while redis.llen(queue):
        time.sleep(0.0005)
    rate = count / (time.monotonic() - begin)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    return rate


def main():
    single = enqueue(int(sys.argv[2]), 32)
    enqueue(int(sys.argv[3]), 100_000)
    print(single, process(int(sys.argv[3])), flush=True)
    redis.flushdb()


if __name__ == "__main__":
    # Under the name that the consumer imports, which is part of every task's name.
    import huey_redis

    huey_redis.main()
