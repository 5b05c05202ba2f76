"""Revokes and terminates a task of one worker, and prints the replies."""
import json
import sys

from peer_tasks import app

replies = app.control.revoke(sys.argv[2], terminate=True, destination=[sys.argv[1]], reply=True, timeout=10)
print(json.dumps({node: value for reply in replies for node, value in reply.items()}))
