//! A Unix socket: private from its first moment, and removed when the server stops. That of the operators, and any other.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

/// Its owner may, and nobody else.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening socket. Its file is removed with this, unless it is another one's by then.
pub struct PrivateSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
    /// Whether its file is to stay: another process listens on it now.
    given: AtomicBool,
}

impl PrivateSocket {
    /// Takes the place of a socket that nobody listens on any more; of nothing else. Blocks.
    pub fn bind(path: &Path) -> io::Result<Self> {
        make_room(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Before it has a name: Linux makes the file with the mode of the socket. A file that is closed to others only
        // afterwards can be opened in between, and who has it open keeps it.
        fchmod(&socket, Mode::from_raw_mode(MODE))?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = fs::symlink_metadata(path)?;
        if file.permissions().mode() & 0o777 & !MODE != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        }
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self::of(socket.into(), path, &file))
    }

    /// One that another process has bound to this path, and passed.
    pub fn passed(listener: UnixListener, path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::of(listener, path, &file))
    }

    fn of(listener: UnixListener, path: &Path, file: &fs::Metadata) -> Self {
        Self { listener, path: path.to_owned(), inode: (file.dev(), file.ino()), given: AtomicBool::new(false) }
    }

    /// Another process has it now, and its file.
    pub fn give_away(&self) {
        self.given.store(true, Ordering::Release);
    }

    /// For the server, which owns what it listens on.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        let is_ours = |file: fs::Metadata| (file.dev(), file.ino()) == self.inode;
        if !self.given.load(Ordering::Acquire)
            && fs::symlink_metadata(&self.path).is_ok_and(is_ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a private socket stays behind");
        }
    }
}

fn make_room(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let in_use = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    if !file.file_type().is_socket() {
        return in_use("there is a file that is no socket");
    }
    // Not waited for: a process that is stopped leaves its queue full.
    let asks = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    asks.set_nonblocking(true)?;
    match asks.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            in_use("another process listens on it, and is stuck")
        }
        Err(error) => Err(error),
        Ok(_) => in_use("another process listens on it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_or_another_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let socket = PrivateSocket::bind(&path).expect("a socket");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, MODE);
        assert!(PrivateSocket::bind(&path).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse));
        drop(socket);
        assert!(!path.exists(), "it is removed");
        drop(UnixListener::bind(&path).expect("a socket that stays behind"));
        let socket = PrivateSocket::bind(&path).expect("a socket in its place");
        fs::remove_file(&path).expect("removed by somebody");
        fs::write(&path, "another one's").expect("a file");
        drop(socket);
        assert!(path.exists(), "what is not ours stays");
        assert!(PrivateSocket::bind(&path).is_err());
        assert!(PrivateSocket::bind(&folder.path().join("no").join("folder")).is_err());
    }
}
