"""Asks workers by Celery's own client, and prints their replies: {command: {worker: reply}}."""
import json
import sys

from peer_tasks import app

NODES = sys.argv[1].split(",")
RUNNING = sys.argv[2].split(",")


def ask(method, **arguments):
    replies = app.control.broadcast(method, arguments=arguments, destination=NODES, reply=True, timeout=10)
    return {node: value for reply in replies or [] for node, value in reply.items()}


COMMANDS = [
    ("ping", {}),
    ("clock", {}),
    ("stats", {}),
    ("active", {"safe": None}),
    ("active", {"safe": True}),
    ("dump_active", {}),
    ("reserved", {}),
    ("scheduled", {}),
    ("revoked", {}),
    ("registered", {"taskinfoitems": []}),
    ("registered", {"taskinfoitems": ["name"]}),
    ("active_queues", {}),
    ("conf", {"with_defaults": False}),
    ("report", {}),
    ("memsample", {}),
    ("query_task", {"ids": RUNNING + ["nobody-knows-it"]}),
    ("hello", {"from_node": "other@x", "revoked": ["r1", "r2"]}),
    ("hello", {"from_node": "other@x", "revoked": {"r3": 1.5}}),
    ("revoked", {}),
    ("enable_events", {}),
    ("enable_events", {}),
    ("disable_events", {}),
    ("disable_events", {}),
    ("heartbeat", {}),
    ("rate_limit", {"task_name": "mixed.add", "rate_limit": "10/m"}),
    ("registered", {"taskinfoitems": []}),
    ("rate_limit", {"task_name": "mixed.add", "rate_limit": 0}),
    ("rate_limit", {"task_name": "mixed.add", "rate_limit": "often"}),
    ("rate_limit", {"task_name": "no.such", "rate_limit": "1/s"}),
    ("rate_limit", {"foo": 1}),
    ("time_limit", {"task_name": "mixed.add", "soft": 20}),
    ("time_limit", {"task_name": "no.such", "soft": 20}),
    ("pool_grow", {"n": 1}),
    ("pool_shrink", {"n": 1}),
    ("autoscale", {"max": 3}),
    ("pool_restart", {"modules": None, "reload": False, "reloader": None}),
    ("add_consumer", {"queue": "extra_q", "exchange": None, "exchange_type": "direct", "routing_key": None}),
    ("cancel_consumer", {"queue": "extra_q"}),
    ("revoke", {"task_id": "id-1", "terminate": False, "signal": "SIGTERM"}),
    ("revoke", {"task_id": ["id-2"], "terminate": True, "signal": "SIGKILL"}),
    ("terminate", {"signal": "SIGTERM", "task_id": "id-3"}),
    ("revoke_by_stamped_headers", {"headers": {"tenant": ["acme", "b"]}, "terminate": False, "signal": "SIGTERM"}),
    ("revoke_by_stamped_headers", {"headers": ["tenant=c"], "terminate": True, "signal": "SIGTERM"}),
    ("no_such_command", {}),
]

print(json.dumps([[method, arguments, ask(method, **arguments)] for method, arguments in COMMANDS]))
