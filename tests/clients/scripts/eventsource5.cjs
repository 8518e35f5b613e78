// eventsource 5: over fetch, comes back by itself.
const {EventSource} = require('eventsource5');

const source = new EventSource(process.argv[2]);
source.onmessage = event => console.log(JSON.stringify({id: event.lastEventId, number: JSON.parse(event.data).number}));
// Its timer does not keep a script alive that waits for nothing else.
setInterval(() => {}, 60_000);
