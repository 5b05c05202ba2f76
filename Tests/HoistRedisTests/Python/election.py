"""Has the Python workers elect one of them, which then enqueues a task on a queue that nobody consumes.

Argument: the id of the election.
"""
import sys

from peer_tasks import add, app

app.control.election(sys.argv[1], "task", action=add.s(1, 1).set(queue="elected"))
print('"asked"')
