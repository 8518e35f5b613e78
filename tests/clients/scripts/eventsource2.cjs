// eventsource 2: under wikimedia-streams and many older bots. No User-Agent, comes back by itself.
const EventSource = require('eventsource2');

const source = new EventSource(process.argv[2]);
source.onmessage = event => console.log(JSON.stringify({id: event.lastEventId, number: JSON.parse(event.data).number}));
