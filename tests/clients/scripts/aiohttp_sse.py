"""aiohttp-sse-client. It comes back by itself after a clean end; a cut raises, and its user begins anew with the id."""

import asyncio
import json
import sys
from datetime import timedelta

import aiohttp
from aiohttp_sse_client import client


async def follow(url):
    last = ""
    while True:
        headers = {"Last-Event-Id": last} if last else {}
        try:
            # aiohttp ends every request after five minutes unless told.
            patience = aiohttp.ClientTimeout(total=None)
            async with client.EventSource(
                url, headers=headers, timeout=patience, reconnection_time=timedelta(seconds=1)
            ) as source:
                async for event in source:
                    last = event.last_event_id
                    print(json.dumps({"id": last, "number": json.loads(event.data)["number"]}), flush=True)
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            await asyncio.sleep(0.2)


asyncio.run(follow(sys.argv[1]))
