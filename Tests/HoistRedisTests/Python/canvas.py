"""Celery's workflows, started by a Python client; prints what the client sees as JSON. The first argument says which."""
import json
import random
import sys

from celery import chain, chord, group, signature
from celery.exceptions import TimeoutError

from peer_tasks import add, app, fail, total


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
    """A chord, and a chain that starts one."""
    found = {"chord": chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async().get(timeout=30)}
    found["chain"] = chain(add.s(1, 1), group(add.s(10), add.s(20)), total.s(), add.s(3)).apply_async().get(timeout=30)
    found["group"] = group(add.s(1, 1), add.s(2, 2)).apply_async().get(timeout=30)
    found["map"] = add.starmap([(1, 1), (2, 2)]).apply_async(queue="mixed").get(timeout=30)
    try:
        chord([add.s(1, 1), fail.s("no luck")], total.s()).apply_async().get(timeout=30)
    except Exception as error:
        found["error"] = [type(error).__name__, "no luck" in str(error)]
    nested = chord([add.s(1, 1), chord([add.s(1, 1), fail.s("no luck")], total.s())], total.s())
    try:
        nested.apply_async().get(timeout=30)
    except Exception as error:
        found["nested"] = type(error).__name__
    say(found)


def canvas(source, depth):
    """A canvas at random that runs on one number, and what it makes of it."""
    kind = source.choice(["add", "add", "chain", "chord"] if depth else ["add"])
    if kind == "add":
        number = source.randint(1, 9)
        return add.s(number), lambda value: value + number
    if kind == "chain":
        parts = [canvas(source, depth - 1) for _ in range(source.randint(2, 3))]

        def run(value):
            for _, part in parts:
                value = part(value)
            return value

        return chain(*[signature for signature, _ in parts]), run
    parts = [canvas(source, depth - 1) for _ in range(source.randint(2, 3))]
    return (chain(group([signature for signature, _ in parts]), total.s()),
            lambda value: sum(part(value) for _, part in parts))


def at_random():
    """So many canvases at random; how many have the result that plain evaluation gives, and the groups left behind."""
    source, wrong, begun = random.Random(int(sys.argv[3])), [], []
    for number in range(int(sys.argv[2])):
        work, evaluate = canvas(source, 3)
        begun.append((chain(add.s(number, 0), work).apply_async(), evaluate(number), repr(work)))
    for result, expected, text in begun:
        try:
            value = result.get(timeout=60)
        except TimeoutError:
            value = "hangs"
        except Exception as error:
            value = repr(error)
        if value != expected:
            wrong.append([text, value, expected])
    wrong.sort(key=lambda found: len(found[0]))
    say({"count": len(begun), "wrong": wrong[:3], "left": len(list(app.backend.client.scan_iter("*taskset-meta-*.j")))})


def ends_with_group():
    """A chain whose last step is a group."""
    result = chain(add.s(1, 1), group(add.s(10), add.s(20))).apply_async()
    say({"values": result.get(timeout=30)})


globals()[sys.argv[1]]()
