//! Why a scenario could not be played to its end. What it found out is a [`crate::report::Report`] instead.

use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("the server could not be started: {0}")]
    Start(String),
    #[error("{address}: {source}")]
    Connection { address: SocketAddr, source: std::io::Error },
    #[error("{address} answered {status}: {body}")]
    Status { address: SocketAddr, status: u16, body: String },
    #[error("{address} speaks no HTTP/1.1 that is understood here: {what}")]
    Protocol { address: SocketAddr, what: &'static str },
    #[error("{readers} readers did not open: {why}")]
    Readers { readers: usize, why: String },
    #[error("the process {pid} cannot be measured: {source}")]
    Process { pid: u32, source: std::io::Error },
    #[error("not done within {0} s")]
    Time(u64),
}
