//! Readiness, told to systemd over `NOTIFY_SOCKET`: a unit of `Type=notify` is started when it can be used.
//!
//! Where no such socket is named, nothing is told. A manager that does not listen is no failure of ours.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::config::Variables;

/// The socket that the service manager listens at.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be used.
    Ready,
    /// It was told to stop, and finishes what it has in flight.
    Stopping,
}

impl State {
    fn message(self) -> &'static [u8] {
        match self {
            Self::Ready => b"READY=1\nSTATUS=serving\n",
            Self::Stopping => b"STOPPING=1\nSTATUS=finishing what is in flight\n",
        }
    }
}

/// Tells the service manager, where there is one.
pub fn tell(variables: &Variables, state: State) {
    let Some(name) = variables.get(SOCKET_VARIABLE).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(name, state) {
        tracing::warn!(error = %error, "the service manager could not be told");
    }
}

fn send(name: &str, state: State) -> io::Result<()> {
    // A name that begins with `@` is none of a file: the kernel keeps it.
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(OsStr::new(name).as_bytes())?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.message(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Variables {
        [(SOCKET_VARIABLE.to_owned(), name.to_owned())].into()
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 128];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn both_states_reach_a_socket_with_a_path_and_one_without() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        tell(&variables(&path.display().to_string()), State::Ready);
        assert!(received(&socket).starts_with("READY=1\n"));
        tell(&variables(&path.display().to_string()), State::Stopping);
        assert!(received(&socket).starts_with("STOPPING=1\n"));

        let name = format!("orphan-sweeper-{}", uuid::Uuid::new_v4());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("an address");
        let socket = UnixDatagram::bind_addr(&address).expect("bound");
        tell(&variables(&format!("@{name}")), State::Ready);
        assert!(received(&socket).starts_with("READY=1\n"));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        tell(&Variables::new(), State::Ready);
        tell(&variables("/nowhere/at/all"), State::Ready);
    }
}
