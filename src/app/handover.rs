//! From one process to the next: the listening sockets, over a Unix socket, so that no connection is refused meanwhile.
//!
//! Who runs offers ([`offer`]); who starts looks for somebody ([`Predecessor::find`]). Between them go lines:
//!
//! ```text
//! successor     sluice-handover 1 take
//! predecessor   sluice-handover 1 public admin operators      with these sockets, in this order
//!               … the successor prepares all that it needs, and begins to serve …
//! successor     go public admin operators                     those that it serves on
//! predecessor   gone                                          it offers no more, and stops
//! ```
//!
//! Until `go` nothing has changed for the predecessor: whatever becomes of the successor, it serves on; also where that has
//! ended before its `go` is read. After `go` nothing ends the successor's start: it may be the only one that serves. Both
//! are of one user. The number is the protocol's: another one is refused.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::StartError;
use super::sockets::{self, Bound, Passed};
use crate::config::Config;
use crate::http::PrivateSocket;
use crate::shutdown::{Stage, Stop};

const PROTOCOL: &str = "sluice-handover 1";
/// What one line may have.
const LINE_BYTES_MAX: usize = 256;
/// Sockets that are passed.
const SOCKETS_MAX: usize = 3;
/// Longest wait for what the other side says at once.
const SAYS_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for `gone`. One that comes later comes all the same; until then nothing is offered.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// How often is looked whether something can be offered, where the server before still holds the place.
const OFFERED_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// After a connection could not be accepted: what is missing (descriptors, mostly) is not there at once.
const ACCEPTED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for a successor to begin to serve: it may have to wait for a catalogue, and for its log.
const GO_WITHIN: Duration = Duration::from_secs(120);

/// One of the sockets, by its name in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Public,
    Admin,
    /// The operators' Unix socket.
    Operators,
}

impl Name {
    const ALL: [Self; SOCKETS_MAX] = [Self::Public, Self::Admin, Self::Operators];

    fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Admin => "admin",
            Self::Operators => "operators",
        }
    }

    fn all_in(words: &str) -> Option<Vec<Self>> {
        let name = |word| Self::ALL.into_iter().find(|name| name.word() == word);
        words.split_whitespace().map(name).collect()
    }
}

fn line(start: &str, names: &[Name]) -> String {
    let mut line = start.to_owned();
    for name in names {
        line.push(' ');
        line.push_str(name.word());
    }
    line.push('\n');
    line
}

/// The server that runs where this one starts.
pub(super) struct Predecessor {
    stream: UnixStream,
    sockets: Vec<(Name, OwnedFd)>,
    /// Those that are served on.
    kept: Vec<Name>,
    path: PathBuf,
}

/// A server whose place was taken, until its process ends.
pub(super) struct Ending(UnixStream);

impl Ending {
    pub(super) fn is_over(&self) -> bool {
        // A late `gone` may be there. After that it says nothing any more: the system does, when the process is gone.
        let mut said = [0; LINE_BYTES_MAX];
        loop {
            match (&self.0).read(&mut said) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

impl Predecessor {
    /// Asks who offers at this path, if anybody does. Blocks.
    pub(super) fn find(path: &Path) -> Result<Option<Self>, StartError> {
        let failed = |cause| StartError::Handover { path: path.to_owned(), cause };
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let sockets = Self::take(&stream).map_err(failed)?;
        Ok(Some(Self { stream, sockets, kept: Vec::new(), path: path.to_owned() }))
    }

    fn take(mut stream: &UnixStream) -> io::Result<Vec<(Name, OwnedFd)>> {
        require_same_user(stream)?;
        stream.set_read_timeout(Some(SAYS_WITHIN))?;
        stream.set_write_timeout(Some(SAYS_WITHIN))?;
        stream.write_all(format!("{PROTOCOL} take\n").as_bytes())?;
        let (answer, sockets) = receive(stream).map_err(told_in_time)?;
        let names = answer.strip_prefix(PROTOCOL).and_then(Name::all_in);
        let names = names.filter(|names| names.len() == sockets.len() && !names.is_empty());
        let names = names.ok_or_else(|| not_understood(&answer))?;
        Ok(names.into_iter().zip(sockets).collect())
    }

    /// Those of its sockets that this configuration asks for; the others are closed here.
    pub(super) fn passed(&mut self, config: &Config) -> Result<Passed, StartError> {
        let failed = |cause| StartError::Handover { path: self.path.clone(), cause };
        let mut passed = Passed::default();
        for (name, socket) in self.sockets.drain(..) {
            match name {
                Name::Public => {
                    let bound = Bound::passed(socket.into(), "--listen").map_err(failed)?;
                    passed.public = Some(bound).filter(|bound| bound.serves(&config.http.listen));
                }
                Name::Admin => {
                    let bound = Bound::passed(socket.into(), "--admin").map_err(failed)?;
                    let wanted = config.admin.listen.as_deref();
                    passed.admin = Some(bound).filter(|bound| wanted.is_none_or(|wanted| bound.serves(wanted)));
                }
                Name::Operators => {
                    let listener = UnixListener::from(socket);
                    let at = listener.local_addr().map_err(failed)?.as_pathname().map(Path::to_owned);
                    if let Some(path) = at.filter(|path| config.admin.socket.as_ref() == Some(path)) {
                        passed.operators = Some(PrivateSocket::passed(listener, &path).map_err(failed)?);
                    }
                }
            }
        }
        if passed.public.is_none() {
            tracing::warn!("another address is to be listened on than before: connections to that one are refused");
        }
        self.kept = passed.names();
        Ok(passed)
    }

    /// This process serves: the other one stops. That it cannot be told is no reason to end.
    pub(super) fn go(mut self) -> Option<Ending> {
        let told = self.stream.set_read_timeout(Some(GONE_WITHIN));
        let told = told.and_then(|()| self.stream.write_all(line("go", &self.kept).as_bytes()));
        match told.and_then(|()| receive(&self.stream)) {
            Ok((answer, _)) if answer == "gone" => tracing::info!("the server that ran before stops"),
            Ok((answer, _)) => tracing::warn!(answer, "the server that ran before may not stop: look after it"),
            Err(error) => tracing::warn!(%error, "the server that ran before may not stop: look after it"),
        }
        self.stream.set_nonblocking(true).ok().map(|()| Ending(self.stream))
    }
}

impl Passed {
    pub(super) fn names(&self) -> Vec<Name> {
        let there = [self.public.is_some(), self.admin.is_some(), self.operators.is_some()];
        Name::ALL.into_iter().zip(there).filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
}

/// What is offered to a successor, until one takes it or a stop begins.
pub(super) struct Offer {
    taken: JoinHandle<Option<Taken>>,
    given: Arc<AtomicBool>,
}

/// A successor serves.
pub(super) struct Taken {
    /// On these.
    pub(super) names: Vec<Name>,
    /// Open until this process ends, so that the successor knows when that is.
    _until_the_end: tokio::net::UnixStream,
}

impl Offer {
    /// Waits for a successor that serves.
    pub(super) async fn taken(&mut self) -> Taken {
        match (&mut self.taken).await {
            Ok(Some(taken)) => taken,
            // Only a stop ends it otherwise, and somebody else waits for that.
            _ => std::future::pending().await,
        }
    }

    /// Whether a successor has the sockets, although it may not serve yet.
    pub(super) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }
}

/// Where it is offered. The listener ends first, and then its file.
type Place = (tokio::net::UnixListener, PrivateSocket);

/// What is to be offered.
pub(super) struct Offered {
    path: PathBuf,
    /// None where the server before this one may still hold it.
    place: Option<Place>,
    sockets: Vec<(Name, OwnedFd)>,
}

impl Offered {
    /// All that can fail. Where there is a server before this one, its place is free after it has gone.
    pub(super) fn new(
        path: &Path,
        sockets: Vec<(Name, OwnedFd)>,
        succeeds: bool,
        engine: &Handle,
    ) -> Result<Self, StartError> {
        let place = if succeeds { None } else { Some(place(path, engine)?) };
        Ok(Self { path: path.to_owned(), place, sockets })
    }

    async fn until_taken(self, given: &AtomicBool) -> (tokio::net::UnixStream, Vec<Name>) {
        let (listener, _file) = match self.place {
            Some(place) => place,
            None => until_placed(&self.path).await,
        };
        loop {
            let (stream, _) = next(|| listener.accept()).await;
            match give(stream, &self.sockets, given).await {
                Ok(taken) => return taken,
                Err(error) => {
                    given.store(false, Ordering::Release);
                    tracing::warn!(%error, "a successor has not taken over: this server serves on");
                }
            }
        }
    }
}

fn place(path: &Path, engine: &Handle) -> Result<Place, StartError> {
    let _entered = engine.enter();
    let file = sockets::bind_private(path, "stop.handover_socket")?;
    Ok((tokio::net::UnixListener::from_std(file.listener()?)?, file))
}

async fn until_placed(path: &Path) -> Place {
    loop {
        tokio::time::sleep(OFFERED_AGAIN_AFTER).await;
        let path = path.to_owned();
        let placed = tokio::task::spawn_blocking(move || place(&path, &Handle::current())).await;
        if let Ok(Ok(place)) = placed {
            tracing::info!("a successor may take over now");
            return place;
        }
    }
}

async fn next<T, A: Future<Output = io::Result<T>>>(mut accept: impl FnMut() -> A) -> T {
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) => tracing::warn!(%error, "a successor cannot be let in: that is tried again"),
        }
        tokio::time::sleep(ACCEPTED_AGAIN_AFTER).await;
    }
}

/// Offers these sockets to whoever connects and is of the same user. One at a time: others wait.
pub(super) fn offer(mut offered: Offered, mut stop: Stop, engine: &Handle) -> Offer {
    if offered.place.is_none() {
        match place(&offered.path, engine) {
            Ok(place) => offered.place = Some(place),
            Err(error) => tracing::warn!(%error, "no successor can take over yet: that is tried again"),
        }
    }
    let given = Arc::new(AtomicBool::new(false));
    let is_given = given.clone();
    let taken = engine.spawn(async move {
        // After it nothing is offered any more, so that the successor can offer at the same place.
        let (mut stream, names) = tokio::select! {
            taken = offered.until_taken(&is_given) => taken,
            () = stop.reached(Stage::Leaving) => return None,
        };
        let _ = timeout(SAYS_WITHIN, stream.write_all(b"gone\n")).await;
        Some(Taken { names, _until_the_end: stream })
    });
    Offer { taken, given }
}

async fn give(
    mut stream: tokio::net::UnixStream,
    sockets: &[(Name, OwnedFd)],
    given: &AtomicBool,
) -> io::Result<(tokio::net::UnixStream, Vec<Name>)> {
    require_same_user(&stream)?;
    let hello = timeout(SAYS_WITHIN, read_line(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if hello != format!("{PROTOCOL} take") {
        stream.write_all(format!("this server speaks {PROTOCOL}\n").as_bytes()).await?;
        return Err(not_understood(&hello));
    }
    let names: Vec<Name> = sockets.iter().map(|(name, _)| *name).collect();
    let answer = line(PROTOCOL, &names);
    given.store(true, Ordering::Release);
    tracing::info!("a successor prepares to take over");
    // The line is far smaller than the socket's buffer: it goes in one piece, or not at all.
    stream.writable().await?;
    stream.try_io(Interest::WRITABLE, || send(&stream, &answer, sockets))?;
    let go = timeout(GO_WITHIN, read_line(&mut stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let names = go.strip_prefix("go").and_then(Name::all_in).ok_or_else(|| not_understood(&go))?;
    require_open(&stream)?;
    Ok((stream, names))
}

/// A `go` may be read long after it was said: who has closed since then does not serve any more.
fn require_open(stream: impl AsFd) -> io::Result<()> {
    match recv(stream, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN) => Ok(()),
        Ok((0, _)) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended since it said that it serves")),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it says more than that it serves")),
        Err(error) => Err(error.into()),
    }
}

fn send(stream: impl AsFd, line: &str, sockets: &[(Name, OwnedFd)]) -> io::Result<()> {
    let sockets: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("more sockets than can be passed"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// A line, and the sockets that come with it.
fn receive(stream: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let (mut text, mut sockets) = (Vec::new(), Vec::new());
    while text.last() != Some(&b'\n') {
        let mut bytes = [0; LINE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                sockets.extend(passed);
            }
        }
        text.extend_from_slice(&bytes[..got]);
        if got == 0 || text.len() > LINE_BYTES_MAX {
            return Err(not_understood(&String::from_utf8_lossy(&text)));
        }
    }
    Ok((String::from_utf8_lossy(&text).trim_end().to_owned(), sockets))
}

async fn read_line(stream: &mut tokio::net::UnixStream) -> io::Result<String> {
    let mut text = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(String::from_utf8_lossy(&text).into_owned()),
            _ if text.len() >= LINE_BYTES_MAX => return Err(not_understood(&String::from_utf8_lossy(&text))),
            byte => text.push(byte),
        }
    }
}

fn require_same_user(stream: impl AsFd) -> io::Result<()> {
    match socket_peercred(stream)?.uid == rustix::process::geteuid() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other process is another user's")),
    }
}

/// What the system says of a wait that has ended is no help.
fn told_in_time(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("it says nothing; another successor may be preparing, for {} s at most", GO_WITHIN.as_secs()),
        ),
        _ => error,
    }
}

fn not_understood(said: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other process says {said:?}, and this one is {PROTOCOL}"))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_cannot_be_accepted_is_not_tried_again_at_once() {
        let (begun, mut tries) = (Instant::now(), 0);
        let accept = || {
            tries += 1;
            std::future::ready(if tries <= 3 { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(tries) })
        };
        assert_eq!(next(accept).await, 4);
        assert!(begun.elapsed() >= 3 * ACCEPTED_AGAIN_AFTER, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_go_whose_sender_has_closed_is_none_and_one_that_says_more_neither() {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        require_open(&ours).expect("it is there, and silent");
        theirs.write_all(b"?").expect("it is open");
        assert!(require_open(&ours).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData));
        (&ours).read_exact(&mut [0]).expect("what it said");
        drop(theirs);
        assert!(require_open(&ours).is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn a_late_gone_is_not_the_end_of_who_says_it() {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        ours.set_nonblocking(true).expect("a socket");
        let ending = Ending(ours);
        assert!(!ending.is_over());
        theirs.write_all(b"gone\n").expect("it is open");
        assert!(!ending.is_over(), "it has said that it stops, and stops now");
        drop(theirs);
        assert!(ending.is_over());
    }
}
