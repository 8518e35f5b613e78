//! Where the load goes. Only this machine's loopback addresses are ever a target.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::broker::Kafka;
use crate::failure::Failure;
use crate::readers::source;
use crate::stream::Ask;

pub(crate) struct Target {
    pub(crate) http: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) pid: Option<u32>,
    /// The server's log, if it is a Kafka that we know of.
    pub(crate) kafka: Option<Kafka>,
    pub(crate) stream: String,
    /// Tells this run's events from all others in the log.
    pub(crate) run: u32,
    first_source: u32,
    producers: AtomicU32,
}

impl Target {
    pub(crate) fn new(http: SocketAddr, stream: String) -> Self {
        let (run, first_source) = (fastrand::u32(..), fastrand::u32(..));
        Self { http, admin: None, pid: None, kafka: None, stream, run, first_source, producers: AtomicU32::new(0) }
    }

    /// The same target for events of a run that began elsewhere.
    pub(crate) fn with_run(self, run: u32) -> Self {
        Self { run, ..self }
    }

    /// The reader of this number at the live end.
    pub(crate) fn ask(&self, index: usize) -> Ask {
        let path = format!("/v2/stream/{}", self.stream);
        Ask { server: self.http, source: source(self.first_source, index), path, last_event_id: None }
    }

    pub(crate) fn ask_since(&self, index: usize, us: u64) -> Ask {
        let ask = self.ask(index);
        Ask { path: format!("{}?since={}", ask.path, us / 1_000), ..ask }
    }

    /// A number that no other producer of this run has.
    pub(crate) fn producer(&self) -> u32 {
        self.producers.fetch_add(1, Relaxed)
    }

    pub(crate) fn needs_pid(&self) -> Result<u32, Failure> {
        self.pid.ok_or_else(|| Failure::Usage("this scenario measures the server: give --pid or --start".to_owned()))
    }
}

/// `http://HOST:PORT`, where HOST is a loopback address.
pub(crate) fn parse_url(url: &str) -> Result<SocketAddr, String> {
    let rest = url.strip_prefix("http://").ok_or("the URL must begin with http://")?;
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or("the URL must name a port")?;
    let host = if host == "localhost" { Ok(Ipv4Addr::LOCALHOST) } else { host.parse() };
    match host {
        Ok(host) if host.is_loopback() => {
            let port = port.parse().map_err(|_| "the port must be a number below 65536")?;
            Ok(SocketAddr::new(IpAddr::V4(host), port))
        }
        _ => Err("only 127.0.0.0/8 and localhost are allowed: the load stays on this machine".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_a_target() {
        assert_eq!(parse_url("http://localhost:8888/"), Ok(SocketAddr::from(([127, 0, 0, 1], 8888))));
        assert!(parse_url("http://127.9.9.9:1").is_ok());
        for refused in [
            "http://10.0.0.1:80",
            "http://example.org:80",
            "https://127.0.0.1:1",
            "http://127.0.0.1",
            "http://0.0.0.0:1",
        ] {
            assert!(parse_url(refused).is_err(), "{refused}");
        }
    }
}
