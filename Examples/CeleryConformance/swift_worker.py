"""pytest plugin: Celery's integration suite against a worker process in place of the Python worker that it starts in itself.

The environment variable CONFORMANCE_WORKER names the program; CONFORMANCE_EXCEPTIONS a file of tests that are expected to fail, one to a line
with the reason after a colon. A test of that file which passes, or another one which fails, fails the run.
"""
import os
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

import celery.contrib.testing.worker as testing_worker
from celery.utils.nodenames import anon_nodename


class Worker:
    hostname = "swift"


@contextmanager
def start_worker(app, **options):
    environment = dict(
        os.environ, BROKER_URL=os.environ["TEST_BROKER"], RESULT_BACKEND=os.environ["TEST_BACKEND"], WORKER_NODENAME=anon_nodename())
    with open(os.environ.get("CONFORMANCE_LOG", os.devnull), "ab") as log:
        process = subprocess.Popen([os.environ["CONFORMANCE_WORKER"]], env=environment, stdout=log, stderr=log)
        try:
            wait_for_answer(app, process)
            yield Worker()
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_answer(app, process, limit=30):
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if app.send_task("celery.ping").get(timeout=2, disable_sync_subtasks=False) == "pong":
                return
        except Exception:
            pass
    raise RuntimeError("the worker does not answer celery.ping")


testing_worker.start_worker = start_worker

# Such a test would only wait for its time-outs, or count each of its parts as a failure.
NOT_RUN = "not run: "
# The suite itself expects such a test to fail, and it does with Celery's worker.
PASSES = "passes here: "


def exceptions():
    with open(os.environ["CONFORMANCE_EXCEPTIONS"], encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return dict(line.split(": ", 1) for line in lines)


def pytest_collection_modifyitems(items):
    listed = exceptions()
    for item in items:
        name = item.nodeid.split("::", 1)[1]
        if name in listed:
            reason = listed.pop(name)
            if reason.startswith(PASSES):
                item.own_markers = [marker for marker in item.own_markers if marker.name != "xfail"]
                continue
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True, run=not reason.startswith(NOT_RUN)))
    # A part of the suite has not all of them.
    if listed and "CONFORMANCE_PART" not in os.environ:
        raise pytest.UsageError(f"listed as exceptions, but not in the suite: {sorted(listed)}")
