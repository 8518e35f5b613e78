// The EventSource that Node itself has, behind --experimental-eventsource.
const source = new EventSource(process.argv[2]);
source.onmessage = event => console.log(JSON.stringify({id: event.lastEventId, number: JSON.parse(event.data).number}));
setInterval(() => {}, 60_000);
