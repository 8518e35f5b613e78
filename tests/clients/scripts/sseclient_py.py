"""sseclient-py over requests. It does not come back by itself, so the loop does, with the last id that it saw."""

import json
import sys
import time

import requests
import sseclient

last = None
while True:
    headers = {"Accept": "text/event-stream"}
    if last:
        headers["Last-Event-ID"] = last
    try:
        answer = requests.get(sys.argv[1], stream=True, headers=headers, timeout=30)
        answer.raise_for_status()
        for event in sseclient.SSEClient(answer).events():
            last = event.id
            print(json.dumps({"id": last, "number": json.loads(event.data)["number"]}), flush=True)
    # The server was killed, or is not back yet. What it refuses is a fault, and ends this.
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        time.sleep(0.2)
