//! A wire that can be cut: passes bytes on between a caller and an engine.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Listens at an address of its own for as long as it lives.
pub struct Proxy {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    open: Mutex<Vec<TcpStream>>,
    carried: AtomicUsize,
    /// Connections are closed as soon as they are made.
    refuses: AtomicBool,
    stop: AtomicBool,
}

impl Proxy {
    pub fn to(engine: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let mine = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for near in listener.incoming() {
                if mine.stop.load(Ordering::Relaxed) {
                    return;
                }
                let near = near.unwrap();
                if mine.refuses.load(Ordering::Relaxed) {
                    continue;
                }
                let far = TcpStream::connect(engine).unwrap();
                pump(near.try_clone().unwrap(), far.try_clone().unwrap());
                pump(far.try_clone().unwrap(), near.try_clone().unwrap());
                mine.open.lock().unwrap().extend([near, far]);
                mine.carried.fetch_add(1, Ordering::Relaxed);
            }
        });
        Proxy {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Cuts all connections; `refuse`: and those to come.
    pub fn cut(&self, refuse: bool) {
        self.shared.refuses.store(refuse, Ordering::Relaxed);
        for socket in self.shared.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Connections that were passed on so far.
    pub fn carried(&self) -> usize {
        self.shared.carried.load(Ordering::Relaxed)
    }

    /// Lets connections pass again.
    pub fn mend(&self) {
        self.shared.refuses.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.cut(true);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..got]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
