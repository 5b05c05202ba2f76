"""Enqueues tasks and looks at results from Python; prints JSON. The first argument says what."""
import json
import sys
from datetime import datetime, timedelta, timezone

from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

import peer_tasks
from peer_tasks import add, app, fail, work


def say(value):
    print(json.dumps(value, default=str), flush=True)


def results():
    """What a caller sees of a success, a failure, other serializers, compression, and of an ignored result."""
    good = add.delay(2, 3)
    bad = fail.delay("no luck")
    packed = add.apply_async((4, 5), serializer="msgpack")
    written = add.apply_async((6, 7), serializer="yaml", compression="zlib")
    squeezed = add.apply_async((8, 9), compression="bzip2")
    ignored = add.apply_async((1, 1), ignore_result=True)
    found = {"good": good.get(timeout=20), "state": good.state, "packed": packed.get(timeout=20), "written": written.get(timeout=20),
             "squeezed": squeezed.get(timeout=20), "children": good.children, "done": good.date_done is not None}
    try:
        bad.get(timeout=20)
    except Exception as error:
        found["error"] = [type(error).__name__, str(error)]
    found["bad_state"] = bad.state
    found["ignored"] = app.backend.get_task_meta(ignored.id)["status"]
    say(found)


def read():
    """Reads the result of the id in the second argument."""
    result = AsyncResult(sys.argv[2], app=app)
    try:
        value = result.get(timeout=20)
        say({"state": result.state, "value": value, "name": result.name, "children": [child.id for child in result.children or []]})
    except TaskRevokedError as error:
        say({"state": result.state, "error": ["TaskRevokedError", str(error)]})
    except Exception as error:
        say({"state": result.state, "error": [type(error).__name__, str(error)]})


def peek():
    """The state and the information of an id, without waiting."""
    result = AsyncResult(sys.argv[2], app=app)
    say({"state": result.state, "info": result.info})


def later():
    """A task due in so many seconds."""
    result = add.apply_async((20, 22), eta=datetime.now(timezone.utc) + timedelta(seconds=float(sys.argv[2])))
    say({"id": result.id})


def one():
    """One task by its name, with arguments as JSON."""
    result = app.send_task(sys.argv[2], args=json.loads(sys.argv[3]))
    say({"id": result.id, "value": result.get(timeout=20)})


def many():
    """So many tasks, some of which fail first, some of which are due later, with priorities; their ids, a line each."""
    count = int(sys.argv[2])
    with app.producer_or_acquire() as producer:
        for number in range(count):
            options = {"priority": number % 10}
            if number % 50 == 0:
                options["countdown"] = 1
            print(work.apply_async((number,), {"fails": 2 if number % 20 == 0 else 0}, producer=producer, **options).id)
    sys.stdout.flush()


def topic():
    """One task to a topic, and one to everybody."""
    from kombu import Exchange

    from peer_tasks import hear

    # Redis knows nothing of exchanges: a publisher must declare their type.
    hear.apply_async(("topic from python",), exchange="events", routing_key="video.7.done", declare=[Exchange("events", type="topic")])
    hear.apply_async(("news from python",), exchange="news", routing_key="mixed", declare=[Exchange("news", type="fanout")])
    say(True)


def collect():
    """How many of the ids on standard input have succeeded, and by whom."""
    by = {}
    for line in sys.stdin:
        value = AsyncResult(line.strip(), app=app).get(timeout=60)
        by[value["by"]] = by.get(value["by"], 0) + 1
    say(by)


globals()[sys.argv[1]]()
