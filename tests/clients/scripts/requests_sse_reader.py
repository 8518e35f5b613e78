"""requests-sse, as its documentation has it. It comes back by itself, after twice the server's `retry:`."""

import json
import sys

from requests_sse import EventSource

with EventSource(sys.argv[1], timeout=30) as source:
    for event in source:
        print(json.dumps({"id": event.last_event_id, "number": json.loads(event.data)["number"]}), flush=True)
