"""Enqueues tasks, asks workers and listens from Python; prints JSON. The first argument says what."""
import json
import sys

from celery.result import AsyncResult

from peer_tasks import add, app, fail, work


def say(value):
    print(json.dumps(value, default=str), flush=True)


def results():
    """What a caller sees of a success, a failure, other serializers and compression, a delay, and an expiry."""
    good = add.delay(2, 3)
    bad = fail.delay("no luck")
    packed = add.apply_async((4, 5), serializer="msgpack")
    written = add.apply_async((6, 7), serializer="yaml", compression="zlib")
    squeezed = add.apply_async((8, 9), compression="bzip2")
    later = add.apply_async((20, 22), countdown=1.5, priority=5)
    found = {"good": good.get(timeout=30), "packed": packed.get(timeout=30), "written": written.get(timeout=30),
             "squeezed": squeezed.get(timeout=30), "later": later.get(timeout=30), "state": good.state}
    try:
        bad.get(timeout=30)
    except Exception as error:
        found["error"] = [type(error).__name__, str(error)]
    found["bad_state"] = bad.state
    say(found)


def read():
    """Reads the result of the id in the second argument."""
    result = AsyncResult(sys.argv[2], app=app)
    try:
        say({"value": result.get(timeout=30), "state": result.state})
    except Exception as error:
        say({"state": result.state, "error": [type(error).__name__, str(error)]})


def chain():
    """A chain that goes through every worker there is."""
    say({"value": (add.s(1, 2) | add.s(10) | add.s(100)).apply_async().get(timeout=30)})


def control():
    """What workers answer to Celery's own client."""
    node = sys.argv[2]
    ask = app.control.inspect([node], timeout=10)
    say({
        "ping": ask.ping(), "stats": sorted((ask.stats() or {}).get(node, {}))[:40],
        "queues": [queue["name"] for queue in (ask.active_queues() or {}).get(node, [])],
        "registered": (ask.registered() or {}).get(node),
    })


def events():
    """The types of events that come while one task is performed, and who sends them."""
    seen = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection)

        def note(event):
            if event["type"] == "worker-heartbeat" and not any(kind == "worker-heartbeat" for kind, _ in seen):
                add.delay(1, 1)
            seen.append([event["type"], event["hostname"]])
            receiver.should_stop = event["type"] == "task-succeeded"

        receiver.handlers = {"*": note}
        receiver.capture(limit=None, timeout=30, wakeup=False)
    say({"types": sorted({kind for kind, _ in seen}), "nodes": sorted({host for _, host in seen})})


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


globals()[sys.argv[1]]()
