"""Celery's workflows, started by a Python client; prints what the client sees as JSON. The first argument says which."""
import json
import sys

from celery import chain, chord, group, signature
from celery.exceptions import TimeoutError

from peer_tasks import add, app, fail


def say(value):
    print(json.dumps(value, default=str), flush=True)


def rescue(**options):
    return signature("mixed.rescue", app=app, **options)


def family(result):
    """State, value and number of children of a result and of those before it, the first one first."""
    found = []
    while result is not None:
        found.insert(0, [result.state, result.result, len(result.children or [])])
        result = result.parent
    return found


def steps():
    """A chain of so many steps, each adding its number."""
    count = int(sys.argv[2])
    result = chain([add.s(0, 1)] + [add.s(number) for number in range(2, count + 1)]).apply_async()
    value = result.get(timeout=60)
    say({"value": value, "family": family(result)})


def links():
    """A callback, several callbacks, an immutable one, and a chain as a callback, each found as a child."""
    one = add.apply_async((1, 2), link=add.s(10).set(task_id="one-" + sys.argv[2]))
    several = add.apply_async((1, 2), link=[
        add.s(10).set(task_id="first-" + sys.argv[2]), add.si(5, 6).set(task_id="second-" + sys.argv[2])])
    longer = add.apply_async((1, 2), link=(add.s(10) | add.s(100).set(task_id="end-" + sys.argv[2])))
    names = ["one", "first", "second", "end"]
    found = {name: app.AsyncResult(name + "-" + sys.argv[2]).get(timeout=30) for name in names}
    found["children"] = [child.get(timeout=30) for child in one.children]
    found["group"] = [type(child).__name__ for child in several.children]
    found["tree"] = len(list(longer.collect(timeout=30)))
    say(found)


def errors():
    """What fails with the first step of a chain, and what its errbacks get."""
    middle = add.s(1)
    result = chain(fail.s("no luck"), middle, add.s(2)).apply_async(link_error=rescue(task_id="rescue-" + sys.argv[2]))
    found = {}
    try:
        result.get(timeout=30)
    except Exception as error:
        found["error"] = [type(error).__name__, str(error)]
    found["states"] = [state for state, _, _ in family(result)]
    root = result.parent.parent
    found["rescued"] = app.AsyncResult("rescue-" + sys.argv[2]).get(timeout=30) == "rescued " + root.id
    say(found)


def chords():
    """A chord, and a chain that starts one: the client hears of both at once."""
    found = {}
    for name, work in {"chord": chord([add.s(1, 1), add.s(2, 2)], add.s(3)),
                       "chain": chain(add.s(1, 1), group(add.s(10), add.s(20)), add.s(3))}.items():
        try:
            found[name] = work.apply_async().get(timeout=20)
        except TimeoutError:
            found[name] = "waits"
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    members = group(add.s(1, 1), add.s(2, 2)).apply_async()
    found["group"] = members.get(timeout=20)
    say(found)


def ends_with_group():
    """A chain whose last step is a group."""
    result = chain(add.s(1, 1), group(add.s(10), add.s(20))).apply_async()
    say({"values": result.get(timeout=30)})


globals()[sys.argv[1]]()
