//! The sockets that the server listens on: bound early, so that a taken port ends the start at once, and listened on only
//! when all else has been found right. Or passed by systemd, or by the process whose place is taken.
//!
//! A listener that is closed resets what waits in its queue: connections that their clients believe to have. So new ones
//! are kept from coming first ([`Bound::refuse_new`]), and it is closed when nothing waits any more. One that another
//! process holds as well is never closed for it: what waits is the other one's.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;

use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockFilter, Socket, Type};

use super::StartError;
use super::handover::{Name, Predecessor};
use crate::config::Config;
use crate::http::{Doors, PrivateSocket};

/// Where operators look first. Taken, and nobody named it: a free one.
const ADMIN_DEFAULT: &str = "127.0.0.1:9102";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// A packet filter that drops what opens a connection (SYN without ACK among the flags of a TCP header), and nothing
/// else: who is half-way in still gets in.
const NO_NEW_ONES: [SockFilter; 5] = [
    // The byte of the flags, of which SYN and ACK are looked at.
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 1, 0, 0x02),
    SockFilter::new(0x06, 0, 0, u32::MAX),
    SockFilter::new(0x06, 0, 0, 0),
];

/// A TCP socket of the server's.
pub(super) struct Bound {
    socket: Socket,
    address: SocketAddr,
    flag: &'static str,
    /// Whether another process holds it, too.
    shared: bool,
}

impl Bound {
    fn new(address: &str, flag: &'static str) -> Result<Self, StartError> {
        let refused = |cause| StartError::Listen { address: address.to_owned(), flag, cause };
        let socket = bind(resolve(address).map_err(refused)?).map_err(refused)?;
        Self::of(socket, flag, false).map_err(refused)
    }

    /// One that listens already, and that another process holds as well.
    pub(super) fn passed(socket: Socket, flag: &'static str) -> io::Result<Self> {
        if !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
        }
        socket.set_nonblocking(true)?;
        Self::of(socket, flag, true)
    }

    fn of(socket: Socket, flag: &'static str, shared: bool) -> io::Result<Self> {
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP socket"))?;
        Ok(Self { socket, address, flag, shared })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    pub(super) fn set_shared(&mut self, shared: bool) {
        self.shared = shared;
    }

    /// For another process.
    pub(super) fn to_pass(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }

    /// From now on connections come in. The listener is for the server, which owns what it listens on.
    pub(super) fn open(&self) -> Result<TcpListener, StartError> {
        let open = || {
            if !self.shared {
                self.socket.listen(BACKLOG)?;
            }
            self.socket.try_clone()
        };
        let refused = |cause| StartError::Listen { address: self.address.to_string(), flag: self.flag, cause };
        Ok(open().map_err(refused)?.into())
    }

    /// Whether this is what a configuration asks for.
    pub(super) fn serves(&self, wanted: &str) -> bool {
        resolve(wanted)
            .is_ok_and(|wanted| wanted == self.address || wanted.port() == 0 && wanted.ip() == self.address.ip())
    }

    /// Whoever tries to connect hears nothing, and tries again a second later.
    pub(super) fn refuse_new(&self) {
        if let Err(error) = self.socket.attach_filter(&NO_NEW_ONES) {
            tracing::warn!(%error, "connections that come while the listener closes may be reset");
        }
    }

    /// Whether connections wait to be accepted.
    pub(super) fn has_waiting(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        let waited = poll(&mut polled, Some(&Timespec::default()));
        waited.is_ok_and(|ready| ready > 0) && polled[0].revents().contains(PollFlags::IN)
    }

    /// From now on connections are refused. Also where the server still holds the listener.
    pub(super) fn close(&self) {
        if let Err(error) = self.socket.shutdown(std::net::Shutdown::Read) {
            tracing::warn!(%error, "the listener stays open until the process ends");
        }
    }
}

/// All of them.
pub(super) struct Sockets {
    pub(super) public: Bound,
    pub(super) admin: Option<Bound>,
    operators: Option<PrivateSocket>,
    pub(super) are_of_systemd: bool,
}

/// What was passed to this process; those that are not wanted are closed.
#[derive(Default)]
pub(super) struct Passed {
    pub(super) public: Option<Bound>,
    pub(super) admin: Option<Bound>,
    pub(super) operators: Option<PrivateSocket>,
}

impl Passed {
    /// By systemd, where it started this very process. Sockets that it names `http` and `admin`; without names the first
    /// is the public one.
    pub(super) fn by_systemd() -> Result<Self, StartError> {
        let mut found = ListenFd::from_env();
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = Self::default();
        for index in 0..found.len() {
            let unusable = |cause| StartError::Passed { index, cause };
            let name = names.next();
            let Some(listener) = found.take_tcp_listener(index).map_err(unusable)? else { continue };
            let (place, flag) = match name {
                Some("admin") => (&mut passed.admin, "--admin"),
                _ => (&mut passed.public, "--listen"),
            };
            if place.is_some() {
                let cause = io::Error::new(io::ErrorKind::InvalidInput, "it is one too many");
                return Err(unusable(cause));
            }
            *place = Some(Bound::passed(listener.into(), flag).map_err(unusable)?);
        }
        Ok(passed)
    }
}

impl Sockets {
    /// Those of a server that runs and hands over, those of systemd, or new ones.
    pub(super) fn find(config: &Config) -> Result<(Self, Option<Predecessor>), StartError> {
        let mut before = config.stop.handover_socket.as_deref().map(Predecessor::find).transpose()?.flatten();
        let passed = before.as_mut().map_or_else(Passed::by_systemd, |before| before.passed(config))?;
        let are_of_systemd = before.is_none() && passed.public.is_some();
        let public = passed.public.map_or_else(|| Bound::new(&config.http.listen, "--listen"), Ok)?;
        let admin = match passed.admin {
            Some(admin) => Some(admin),
            None => bind_admin(config.admin.listen.as_deref())?,
        };
        let operators = match (passed.operators, &config.admin.socket) {
            (Some(operators), _) => Some(operators),
            (None, Some(path)) => Some(bind_private(path, "admin.socket")?),
            (None, None) => None,
        };
        Ok((Self { public, admin, operators, are_of_systemd }, before))
    }

    /// For the operators' server. From now on connections come in there.
    pub(super) fn doors(&mut self) -> Result<Doors, StartError> {
        Ok(Doors { tcp: self.admin.as_ref().map(Bound::open).transpose()?, socket: self.operators.take() })
    }

    /// For a successor.
    pub(super) fn to_pass(&self, operators: Option<&PrivateSocket>) -> io::Result<Vec<(Name, OwnedFd)>> {
        let mut passed = vec![(Name::Public, self.public.to_pass()?)];
        if let Some(admin) = &self.admin {
            passed.push((Name::Admin, admin.to_pass()?));
        }
        if let Some(operators) = operators {
            passed.push((Name::Operators, operators.listener()?.into()));
        }
        Ok(passed)
    }
}

fn bind_admin(asked: Option<&str>) -> Result<Option<Bound>, StartError> {
    match asked {
        Some("off") => Ok(None),
        Some(address) => Bound::new(address, "--admin").map(Some),
        None => match Bound::new(ADMIN_DEFAULT, "--admin") {
            Err(StartError::Listen { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!("{ADMIN_DEFAULT} is taken: the operators' listener takes a free port");
                Bound::new("127.0.0.1:0", "--admin").map(Some)
            }
            bound => bound.map(Some),
        },
    }
}

pub(super) fn bind_private(path: &Path, flag: &'static str) -> Result<PrivateSocket, StartError> {
    let refused = |cause| StartError::Listen { address: path.display().to_string(), flag, cause };
    PrivateSocket::bind(path).map_err(refused)
}

fn resolve(address: &str) -> io::Result<SocketAddr> {
    let unresolved = || io::Error::new(io::ErrorKind::InvalidInput, "it is not ADDRESS:PORT");
    address.to_socket_addrs()?.next().ok_or_else(unresolved)
}

/// A port on which somebody listens is taken; it is listened on later.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    fn listening() -> (Bound, TcpListener) {
        let bound = Bound::new("127.0.0.1:0", "--listen").expect("a port");
        let listener = bound.open().expect("a listener");
        (bound, listener)
    }

    #[test]
    fn who_waits_is_accepted_after_new_ones_are_refused_and_is_served() {
        let (bound, listener) = listening();
        let mut waits = TcpStream::connect(bound.address()).expect("a connection");
        bound.refuse_new();
        let soon = Duration::from_millis(200);
        let too_late = TcpStream::connect_timeout(&bound.address(), soon);
        assert!(too_late.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut), "its SYN was dropped");
        assert!(bound.has_waiting());
        let (mut served, _) = listener.accept().expect("the one that waits");
        assert!(!bound.has_waiting());
        bound.close();
        let refused = TcpStream::connect(bound.address());
        assert!(refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused));
        waits.write_all(b"?").expect("it is connected");
        served.set_nonblocking(false).expect("a socket");
        let mut byte = [0];
        served.read_exact(&mut byte).expect("it is connected");
        served.write_all(b"!").expect("it is connected");
        waits.read_exact(&mut byte).expect("it is answered");
        assert_eq!(byte, *b"!");
    }

    #[test]
    fn a_port_is_closed_until_it_is_opened_and_taken_once_it_is() {
        let bound = Bound::new("127.0.0.1:0", "--listen").expect("a port");
        assert!(TcpStream::connect(bound.address()).is_err(), "nobody listens");
        let _listener = bound.open().expect("a listener");
        assert!(TcpStream::connect(bound.address()).is_ok());
        let taken = Bound::new(&bound.address().to_string(), "--listen");
        assert!(matches!(taken, Err(StartError::Listen { flag: "--listen", .. })));
    }

    #[test]
    fn a_socket_that_does_not_listen_cannot_be_passed() {
        let socket = bind("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        assert!(Bound::passed(socket, "--listen").is_err());
        let (bound, listener) = listening();
        let passed = Bound::passed(listener.into(), "--listen").expect("it listens");
        assert!(passed.is_shared() && !bound.is_shared());
        assert!(passed.serves(&bound.address().to_string()) && passed.serves("127.0.0.1:0"));
        assert!(!passed.serves("127.0.0.2:0") && !passed.serves("nowhere"));
    }
}
