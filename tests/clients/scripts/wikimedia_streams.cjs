// wikimedia-streams. It knows one host only, so we are its proxy: the request names that host, in absolute form.
const {default: WikimediaStream} = require('wikimedia-streams');

const url = new URL(process.argv[2]);
const streams = new WikimediaStream(url.pathname.split('/').pop(), {proxy: url.origin});
// Without a listener a lost connection would end the process. It comes back at once, whatever `retry:` says.
streams.on('error', () => {});
streams.on('test', (data, event) => console.log(JSON.stringify({id: event.lastEventId, number: data.number})));
