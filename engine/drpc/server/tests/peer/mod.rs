//! A peer that sends any packet it likes and never waits, and a server stepped by hand beside it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use daos_errno::Der;
use drpc_wire::packet_socket::{address, receive, socket};
use drpc_wire::{
    Assembler, Call, Chunker, Framing, MAX_MESSAGE, MAX_PACKET, Message, Progress, Response, Status,
};
use engine_drpc::{DrpcServer, DrpcSocket, Handler, Options, Registry, Reply};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use tempfile::TempDir;

/// Module of [`Echo`].
pub(crate) const ECHO: i32 = 0;
/// Module of [`Kept`].
pub(crate) const KEEP: i32 = 5;

/// Answers with the call's body.
pub(crate) fn echo(call: Call, reply: Reply) {
    reply.success(call.body);
}

/// Keeps calls until the test answers them.
#[derive(Clone, Default)]
pub(crate) struct Kept(pub(crate) Arc<Mutex<Vec<(Call, Reply)>>>);

impl Handler for Kept {
    fn handle(&self, call: Call, reply: Reply) {
        self.0.lock().expect("not poisoned").push((call, reply));
    }
}

impl Kept {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }

    /// The oldest kept call.
    pub(crate) fn take(&self) -> (Call, Reply) {
        self.0.lock().expect("not poisoned").remove(0)
    }
}

/// A server in a directory of its own, module 0 echoing, module 5 keeping.
pub(crate) struct Bench {
    pub(crate) server: DrpcServer,
    pub(crate) registry: Registry,
    pub(crate) kept: Kept,
    pub(crate) path: PathBuf,
    /// The hand-turned clock, nanoseconds.
    pub(crate) now: u64,
    /// The server's listening socket, to be broken.
    pub(crate) listener: OwnedFd,
    _dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Bench {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("engine.sock");
        let registry = Registry::new();
        let kept = Kept::default();
        registry.register(ECHO, Arc::new(echo)).expect("free id");
        registry
            .register(KEEP, Arc::new(kept.clone()))
            .expect("free id");
        let socket = DrpcSocket::bind(&path, options.mode).expect("binds");
        let listener = socket.as_fd().try_clone_to_owned().expect("clones");
        let server = DrpcServer::new(socket, registry.clone(), options);
        Bench {
            server,
            registry,
            kept,
            path,
            now: 1_000_000_000,
            listener,
            _dir: dir,
        }
    }

    /// One step that does not wait.
    pub(crate) fn step(&mut self) -> Result<(), Der> {
        self.server.progress_at(0, self.now)
    }

    /// Steps until nothing is ready.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.step() == Err(Der::TIMEDOUT) {
                return;
            }
        }
        panic!("the server is never done");
    }

    /// A connected and accepted peer.
    pub(crate) fn peer(&mut self) -> Peer {
        let peer = self.waiting_peer();
        self.settle();
        peer
    }

    /// A peer that has connected and waits to be accepted.
    pub(crate) fn waiting_peer(&self) -> Peer {
        let fd = socket(SocketFlags::NONBLOCK).expect("a socket");
        rustix::net::connect(&fd, &address(&self.path).expect("short")).expect("connects");
        Peer {
            fd,
            assembler: Assembler::with_framing(MAX_MESSAGE, Framing::Chunked),
            buffer: vec![0; MAX_PACKET],
        }
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) {
        self.now += ms * 1_000_000;
    }
}

pub(crate) struct Peer {
    pub(crate) fd: OwnedFd,
    assembler: Assembler,
    buffer: Vec<u8>,
}

/// What a peer finds on its socket.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    Nothing,
    Closed,
    Response(Response),
}

impl Peer {
    /// Sends bytes as one packet.
    pub(crate) fn send_raw(&self, packet: &[u8]) -> Result<(), Errno> {
        rustix::net::send(&self.fd, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
    }

    /// Sends as many packets of a message as the socket takes; whether that was all.
    pub(crate) fn send_some(&self, chunker: &mut Chunker) -> bool {
        while let Some(packet) = chunker.packet() {
            if self.send_raw(&packet.to_vec()).is_err() {
                return false;
            }
            chunker.advance();
        }
        true
    }

    /// Sends a call that fits one packet.
    pub(crate) fn call(&self, module: i32, method: i32, sequence: i64, body: &[u8]) {
        let mut chunker = call(module, method, sequence, body);
        assert!(self.send_some(&mut chunker), "the socket is full");
    }

    /// What is there now.
    pub(crate) fn look(&mut self) -> Found {
        loop {
            match receive(&self.fd, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(0) | Err(Errno::PIPE) => return Found::Closed,
                // Said once, before what the other end had still sent.
                Err(Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return Found::Nothing,
                Err(errno) => panic!("receive: {errno}"),
                Ok(len) => match self
                    .assembler
                    .push(&self.buffer[..len])
                    .expect("well framed")
                {
                    Progress::More => {}
                    Progress::Message(bytes) => {
                        return Found::Response(Response::decode(bytes.as_ref()).expect("decodes"));
                    }
                },
            }
        }
    }

    /// The response that must be there.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        match self.look() {
            Found::Response(response) => response,
            other => panic!("expected a response, found {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn assert_answer(&mut self, sequence: i64, status: Status, body: &[u8]) {
        let response = self.response();
        assert_eq!(
            (
                response.sequence,
                response.status(),
                response.body.as_slice()
            ),
            (sequence, status, body)
        );
    }

    #[track_caller]
    pub(crate) fn assert_refused_and_closed(&mut self) {
        self.assert_answer(-1, Status::FailedUnmarshalCall, b"");
        assert_eq!(self.look(), Found::Closed);
    }
}

/// A call on its way out.
pub(crate) fn call(module: i32, method: i32, sequence: i64, body: &[u8]) -> Chunker {
    let call = Call {
        module,
        method,
        sequence,
        body: body.to_vec(),
    };
    Chunker::new(call.encode_to_vec(), Framing::Chunked).expect("fits")
}
