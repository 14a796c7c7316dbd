//! A TCP connection's way through a place where it can be cut or made slow.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What happens on the way.
#[derive(Default)]
pub struct Wire {
    cut: AtomicBool,
    late_ms: AtomicU64,
}

impl Wire {
    /// Connections end, and no new ones are taken.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }

    /// Everything arrives so much later than it was sent.
    pub fn stretch(&self, late: Duration) {
        let late = u64::try_from(late.as_millis()).expect("a short time");
        self.late_ms.store(late, Ordering::SeqCst);
    }
}

/// Passes connections on to there; where they are taken.
pub(super) fn lay(to: SocketAddr, wire: &Arc<Wire>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number");
    let wire = Arc::clone(wire);
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            if wire.cut.load(Ordering::SeqCst) {
                continue;
            }
            let Ok(far) = TcpStream::connect(to) else {
                continue;
            };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                    continue;
                };
                let wire = Arc::clone(&wire);
                std::thread::spawn(move || pass_on(from, to, &wire));
            }
        }
    });
    address
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, wire: &Wire) {
    let look = Some(Duration::from_millis(20));
    from.set_read_timeout(look).expect("a time-out");
    let mut buffer = [0; 8192];
    while !wire.cut.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                std::thread::sleep(Duration::from_millis(wire.late_ms.load(Ordering::SeqCst)));
                if to.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
            Err(_) => {}
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
