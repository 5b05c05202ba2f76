"""The Python side of the wire tests: a Celery application on kombu's in-memory transport.

read:  takes one envelope on standard input, decodes and runs it as a worker would, prints what it saw.
write: sends tasks and prints the envelopes that a broker would hold.
"""
import json
import sys
from datetime import datetime, timezone

from celery import Celery
from celery.worker.request import Request
from kombu.transport.virtual import Message

app = Celery("peer", broker="memory://", backend="cache+memory://")


@app.task(name="peer.add", bind=True)
def add(self, x, y_value, when, token):
    return {"sum": x + y_value, "when": when.isoformat()}


def read():
    with app.connection() as connection:
        channel = connection.channel()
        message = Message(json.loads(sys.stdin.read()), channel=channel)
        message.accept = {"application/json"}
        request = Request(message, app=app)
        args, kwargs, embed = message.payload
        assert set(embed) <= {"callbacks", "errbacks", "chain", "chord"}, embed
        result = app.tasks[request.name](*args, **kwargs)
        print(json.dumps({
            "task": request.name,
            "id": request.id,
            "result": result["sum"],
            "when": result["when"],
            "eta": request.eta.astimezone(timezone.utc).isoformat(),
            "expires": request.expires.astimezone(timezone.utc).isoformat(),
            "timelimit": message.headers["timelimit"],
            "tenant": message.headers["tenant"],
            "kwargsrepr": message.headers["kwargsrepr"],
        }))


def write():
    when = datetime.fromtimestamp(1_700_000_000, timezone.utc)
    add.apply_async((1, 2.5), {"when": when, "token": "t"})
    add.apply_async(
        (1, 2.5, when, "t"), eta=datetime.fromtimestamp(4_000_000_000, timezone.utc), priority=7,
        time_limit=9, soft_time_limit=5)
    add.apply_async((1, 2.5, when, "t"), headers={"tenant": "acme"}, ignore_result=True)
    with app.connection() as connection:
        channel = connection.channel()
        by_tag = [channel._get("celery") for _ in range(3)]
    first = [e for e in by_tag if not e["headers"]["eta"] and not e["headers"].get("tenant")]
    second = [e for e in by_tag if e["headers"]["eta"]]
    third = [e for e in by_tag if e["headers"].get("tenant")]
    print(json.dumps(first + second + third))


{"read": read, "write": write}[sys.argv[1]]()
