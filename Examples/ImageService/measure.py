#!/usr/bin/env python3
"""How an API answers while it works: 50 requests at once, first with the work in the server, then in a queue.

    scripts/build-examples -c release --product ImageService     # or a debug build: the painter is compiled at full speed in both
    Examples/ImageService/measure.py PATH/TO/ImageService

Starts the server with one background thread for each processor, or the server and one worker process for each, sends 50
orders at once, and asks for the page twenty times a second until every picture is painted.
"""
import concurrent.futures
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PICTURES, SIZE = 50, 256
PROCESSORS = os.cpu_count() or 2


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def page(url):
    """The milliseconds until the page was there."""
    begin = time.perf_counter()
    with urllib.request.urlopen(url + "/", timeout=60) as answer:
        answer.read()
    return (time.perf_counter() - begin) * 1000


def ask(url, body=None):
    """The answer as JSON, and the milliseconds until it was there."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    begin = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        value = json.loads(answer.read())
    return value, (time.perf_counter() - begin) * 1000


def share(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def measure(program, mode, what, more=()):
    folder = tempfile.mkdtemp(prefix="image-measure-")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--backend", f"sqlite:{folder}/jobs.db", "--data", f"{folder}/pictures", "--pictures", str(PROCESSORS)]
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    programs = [subprocess.Popen([program, "serve", "--port", str(port), *more] + options, **quiet)]
    if mode == "queue":
        programs.append(subprocess.Popen([program, "worker"] + options, **quiet))
    try:
        wanted = 1 if mode == "queue" else 0
        end = time.monotonic() + 60
        while True:
            try:
                if len(ask(url + "/state")[0]["workers"]) >= wanted:
                    break
            except OSError:
                pass
            if time.monotonic() > end:
                sys.exit("the service does not start")
            time.sleep(0.05)
        idle = [page(url) for _ in range(50)]
        begin = time.monotonic()

        def order(number):
            try:
                return ask(url + "/generate", {"prompt": f"picture {number}", "size": SIZE, "mode": mode})[1]
            except OSError:
                return None

        with concurrent.futures.ThreadPoolExecutor(PICTURES) as pool:
            answers = list(pool.map(order, range(PICTURES)))
        orders = [answer for answer in answers if answer is not None]
        busy, done = [], 0
        while done < len(orders):
            for _ in range(20):
                busy.append(page(url))
                time.sleep(0.05)
            state, _ = ask(url + "/state")
            done = sum(picture["state"] == "succeeded" for picture in state["pictures"])
            if time.monotonic() - begin > 600:
                sys.exit("the pictures are not painted")
        print(
            f"{what}: {len(orders)} of {PICTURES} orders accepted, answered in {share(orders, 0.5):.1f} ms (median), {max(orders):.1f} ms (the slowest); "
            f"the page meanwhile {share(busy, 0.5):.1f} ms (median), {share(busy, 0.99):.1f} ms (99th percentile), "
            f"{share(idle, 0.5):.1f} ms when idle; all painted after {time.monotonic() - begin:.1f} s")
    finally:
        for process in programs:
            process.send_signal(signal.SIGTERM)
        for process in programs:
            process.wait()
        shutil.rmtree(folder)


measure(sys.argv[1], "background", "a plain task", ["--shared-threads"])
measure(sys.argv[1], "background", "a background task on threads of its own")
measure(sys.argv[1], "queue", "a queue job")
