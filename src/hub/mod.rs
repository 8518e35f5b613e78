//! The readers' half: one tail per host, many channels, readers that pull.
//!
//! - `tail` reads the log once for everybody and pushes frames into the channels' rings
//! - `channel` one stream set's live frames; `ring` the newest of them, one question with three answers
//! - `frame` a record encoded for the wire: the channel's head and the record's shared body
//! - `place` where a reader starts: id, time or live, resolved against the ring and the log
//! - `catchup` blocks read from the log for readers behind the ring, shared by all of them
//! - `subscription` one reader's bookmark, and what comes after it
//! - `wake` one wake per worker; each worker wakes its own readers
//! - `registry` all readers of the host
//!
//! Knows no HTTP server, no addresses (a reader's `ClientKey` is opaque), no intake, and no engine: only `dyn Log`.
