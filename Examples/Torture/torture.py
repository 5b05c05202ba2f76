"""The same jobs, good and bad, for a Hoist worker and for Celery's own with its prefork pool, sent and followed by Celery's client.
Arguments: URL TORTURE [JOBS [BAD [WITHOUT]]]: a Redis that may be emptied, the Torture program, how many jobs, how many of each bad kind, and
kinds to leave out, with commas between.

As the worker's module it holds the Python tasks.
"""
import collections
import ctypes
import os
import signal
import stat
import subprocess
import sys
import time

from celery import Celery
from celery.result import ResultSet  # noqa: F401  (loads what results need before time is taken)

URL = os.environ.get("TORTURE_URL") or (sys.argv[1] if len(sys.argv) > 1 else "redis://")
LIMIT = 2
CHILDREN = 4
LATE = os.environ.get("TORTURE_LATE") == "1"
app = Celery("torture", broker=URL, backend=URL)
app.conf.update(
    task_time_limit=LIMIT, task_default_queue="celery", worker_redirect_stdouts=False, broker_connection_retry_on_startup=True,
    task_acks_late=LATE, task_reject_on_worker_lost=LATE)
BAD = ["trap", "segfault", "exit", "killSelf", "spin", "ignoreTermination", "allocate", "garbage", "closeChannel", "fork", "daemon", "flood", "raise"]


def channels():
    for descriptor in range(3, 256):
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            continue
        if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
            yield descriptor


def spin():
    while True:
        pass


@app.task(name="torture.ordeal")
def ordeal(deed, number):
    if deed == "trap":
        os.abort()
    elif deed == "segfault":
        ctypes.string_at(8)
    elif deed == "exit":
        os._exit(3)
    elif deed == "killSelf":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "spin":
        spin()
    elif deed == "ignoreTermination":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        spin()
    elif deed == "allocate":
        # Nothing would stop it, so it stops itself at 2 GiB.
        blocks = [b"x" * (8 << 20) for _ in range(256)]
        while blocks:
            pass
    elif deed == "garbage":
        for descriptor in channels():
            try:
                os.set_blocking(descriptor, False)
                os.write(descriptor, b"\xa5" * 10000)
            except OSError:
                pass
        time.sleep(1)
    elif deed == "closeChannel":
        for descriptor in list(channels()):
            os.close(descriptor)
    elif deed == "fork":
        if os.fork() == 0:
            while True:
                time.sleep(1000)
    elif deed == "daemon":
        subprocess.run(["sh", "-c", "setsid sleep 1002 &"])
    elif deed == "flood":
        block = b"x" * 99_999 + b"\n"
        for _ in range(1000):
            os.write(1, block)
    elif deed == "raise":
        raise ValueError("on purpose")
    return number * 2


def start_hoist(program):
    environment = dict(os.environ, SWIFT_BACKTRACE="enable=no")
    return subprocess.Popen(
        [program, "worker", "--backend", URL, "--queue", "torture", "--children", str(CHILDREN), "--log-level", "critical"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def start_celery(late):
    environment = dict(os.environ, TORTURE_URL=URL, TORTURE_LATE="1" if late else "", C_FORCE_ROOT="1")
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "torture", "worker", "-c", str(CHILDREN), "-Q", "torture", "-l", "critical", "--without-gossip",
         "--without-mingle"], env=environment, cwd=os.path.dirname(os.path.abspath(__file__)), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True)


def outcome(result):
    state = result.state
    if state == "SUCCESS":
        return "succeeded"
    if state == "FAILURE":
        return type(result.result).__name__
    return "no result"


def orphans():
    """Sleeping programs that jobs start, and processes of a worker's that belong to none any more."""
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            command = open("/proc/%s/cmdline" % name, "rb").read()
            parent = int(open("/proc/%s/stat" % name).read().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):
            continue
        if b"sleep\0100" in command or ((b"torture" in command or b"Torture" in command) and parent == 1):
            found.add(int(name))
    return found


def remove_left_over():
    subprocess.run(["pkill", "-9", "-f", "sleep 100[0-9]"])
    subprocess.run(["pkill", "-9", "-f", "celery -A torture"])


def put_through(start, jobs, bad, patience=40):
    with app.connection_for_read() as connection:
        connection.default_channel.client.flushdb()
    before_us = orphans()
    worker = start()
    step = max(1, jobs // max(1, bad * len(BAD)))
    deeds = [BAD[i // step % len(BAD)] if i % step == 0 and i // step < bad * len(BAD) else "good" for i in range(jobs)]
    begin = time.time()
    results = [ordeal.apply_async(kwargs={"deed": deed, "number": i}, queue="torture") for i, deed in enumerate(deeds)]
    pending, last = dict(enumerate(results)), time.time()
    while pending and time.time() - last < patience:
        before = len(pending)
        for index in list(pending)[:400]:
            if pending[index].ready():
                del pending[index]
        if len(pending) < before:
            last = time.time()
        time.sleep(0.2)
    seconds = (last if pending else time.time()) - begin
    counts = collections.defaultdict(collections.Counter)
    for deed, result in zip(deeds, results):
        counts[deed][outcome(result)] += 1
    wrong = sum(1 for i, (deed, result) in enumerate(zip(deeds, results)) if deed == "good" and result.state == "SUCCESS" and result.result != i * 2)
    alive = worker.poll() is None
    left = len(orphans() - before_us - {worker.pid})

    # The worker is killed with four jobs in hand; another takes its place.
    if alive:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    remove_left_over()
    with app.connection_for_read() as connection:
        connection.default_channel.client.flushdb()
    worker = start()
    time.sleep(4)
    held = [ordeal.apply_async(kwargs={"deed": "spin", "number": 0}, queue="torture") for _ in range(CHILDREN)]
    time.sleep(1)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    killed = time.time()
    worker = start()
    while not all(result.ready() for result in held) and time.time() - killed < 60:
        time.sleep(0.05)
    took = time.time() - killed - LIMIT if all(result.ready() for result in held) else None
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    remove_left_over()
    return dict(counts=counts, seconds=seconds, alive=alive, left=left, wrong=wrong, took=took, hung=len(pending))


def main():
    program = sys.argv[2]
    for kind in sys.argv[5].split(",") if len(sys.argv) > 5 else []:
        BAD.remove(kind)
    jobs = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    bad = int(sys.argv[4]) if len(sys.argv) > 4 else 15
    columns = {
        "Hoist": put_through(lambda: start_hoist(program), jobs, bad),
        "Celery prefork": put_through(lambda: start_celery(False), jobs, bad),
        "Celery, acks_late and reject_on_worker_lost": put_through(lambda: start_celery(True), jobs, bad),
    }
    print("| %d jobs, %d of each bad kind | %s |" % (jobs, bad, " | ".join(columns)))
    print("|---" * (len(columns) + 1) + "|")

    def row(what, tell):
        print("| %s | %s |" % (what, " | ".join(tell(column) for column in columns.values())))

    for deed in ["good"] + BAD:
        row(deed, lambda c: ", ".join("%d %s" % (n, what) for what, n in c["counts"][deed].most_common()))
    row("jobs with no result", lambda c: str(c["hung"]))
    row("seconds until the last result", lambda c: "%.0f" % c["seconds"])
    row("worker alive at the end", lambda c: "yes" if c["alive"] else "no")
    row("processes left behind", lambda c: str(c["left"]))
    row("jobs of a killed worker taken over after", lambda c: "not within 60 s" if c["took"] is None else "%.1f s" % c["took"])


if __name__ == "__main__":
    main()
