"""pywikibot's `comms.eventstreams`. A real Site would log in over the network; all that is asked of it stands here."""

import json
import os
import sys

os.environ["PYWIKIBOT_NO_USER_CONFIG"] = "2"

from pywikibot.comms.eventstreams import EventStreams


class Family:
    name = "wikipedia"


class Site:
    code = "en"
    family = Family()
    sitename = "wikipedia:en"

    def username(self):
        return "ExampleBot"


# The first wait of its EventSource is 5 s, doubled: for as long as no event has told it the server's `retry:`.
stream = EventStreams(site=Site(), url=sys.argv[1])
for event in stream:
    print(json.dumps({"id": stream.source._last_event_id, "number": event["number"]}), flush=True)
