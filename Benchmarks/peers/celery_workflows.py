"""What the steps of chains and the members of chords cost with Celery's workers (prefork, 2 children).

    python celery_workflows.py redis://localhost:6379/1
"""
import subprocess
import sys
import time

from celery import Celery, chain, chord

url = sys.argv[1] if __name__ == "__main__" else __import__("os").environ["BENCH_URL"]
app = Celery("celery_workflows", broker=url, backend=url)
app.conf.worker_prefetch_multiplier = 64


@app.task(name="bench.begin")
def begin():
    return 1


@app.task(name="bench.next")
def following(number):
    return number + 1


@app.task(name="bench.sum")
def total(numbers):
    return sum(numbers)


def measure(body):
    begun = time.perf_counter()
    body()
    return time.perf_counter() - begun


def main():
    environment = dict(__import__("os").environ, BENCH_URL=url)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_workflows", "worker", "-c", "2", "-l", "error", "--without-gossip",
         "--without-mingle", "--without-heartbeat"], env=environment, cwd=__file__.rpartition("/")[0] or ".")
    try:
        begin.delay().get(timeout=60)
        seconds = measure(lambda: chain([begin.s()] + [following.s() for _ in range(99)]).apply_async().get(timeout=120))
        print(f"Celery, chain of 100: {seconds * 10:.3f} ms a step")
        for count, size in [(50, 10), (1, 1000)]:
            def chords():
                results = [chord([following.s(number) for number in range(size)], total.s()).apply_async() for _ in range(count)]
                for result in results:
                    result.get(timeout=120)
            print(f"Celery, {count} chords of {size}: {count * size / measure(chords):.0f} jobs/s")
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
