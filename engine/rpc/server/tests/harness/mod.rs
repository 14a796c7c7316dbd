//! An engine's RPC service on real reactors and sockets: one system thread and one thread per target on two cores.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod child;
pub mod proxy;
pub mod taking;

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine_rpc::{HandlerEntry, Opcode, Options, Registry, Request, RpcHandler, RpcServer, Seat};
use rpc_wire::{Client, HEADER_LEN, Header, HelloRequest, Outgoing, PROTOCOL};
use spdk_reactor::{ReactorOptions, ReactorSet};
use spdk_thread::{Thread, ThreadHandle, ThreadOptions};

pub const MODULE: u8 = 4;
/// Answers with the request's body and bulk.
pub const ECHO: Opcode = Opcode::new(MODULE, 1, 0);
/// Answers with the name of the thread it ran on.
pub const WHERE: Opcode = Opcode::new(MODULE, 1, 1);
/// Drops the request.
pub const FORGET: Opcode = Opcode::new(MODULE, 1, 2);
/// Panics.
pub const PANIC: Opcode = Opcode::new(MODULE, 1, 3);
/// Keeps the request until [`Engine::release_held`], which echoes it.
pub const HOLD: Opcode = Opcode::new(MODULE, 1, 4);
/// Answers with the status in the body.
pub const STATUS: Opcode = Opcode::new(MODULE, 1, 5);
/// Answers 0.
pub const SINK: Opcode = Opcode::new(MODULE, 1, 6);

/// Lines noted from any thread.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    pub fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

type Held = Arc<Mutex<Vec<Request>>>;

fn echo(mut request: Request) {
    let body = request.body().to_vec();
    let bulk = request.take_bulk();
    request.reply(0, &body, bulk);
}

fn handlers(held: &Held) -> Vec<HandlerEntry> {
    let held = Arc::clone(held);
    let entry = |opcode: Opcode, name: &str, handler: Arc<dyn RpcHandler>| {
        HandlerEntry::new(opcode.index(), name, handler)
    };
    vec![
        entry(ECHO, "echo", Arc::new(echo)),
        entry(
            WHERE,
            "where",
            Arc::new(|request: Request| {
                let name = spdk_thread::current().map(|thread| thread.name().to_owned());
                request.reply(0, name.unwrap_or_default().as_bytes(), None);
            }),
        ),
        entry(FORGET, "forget", Arc::new(|request: Request| drop(request))),
        entry(PANIC, "panic", Arc::new(|_: Request| panic!("as asked"))),
        entry(
            HOLD,
            "hold",
            Arc::new(move |request: Request| held.lock().unwrap().push(request)),
        ),
        entry(
            STATUS,
            "status",
            Arc::new(|request: Request| {
                let status = i32::from_le_bytes(request.body().try_into().unwrap());
                request.reply(status, b"", None);
            }),
        ),
        entry(
            SINK,
            "sink",
            Arc::new(|request: Request| request.reply(0, b"", None)),
        ),
    ]
    .into_iter()
    .chain(taking::handlers())
    .collect()
}

pub struct Engine {
    server: Option<RpcServer>,
    reactors: Mutex<ReactorSet>,
    threads: Vec<ThreadHandle>,
    held: Held,
    pub registry: Registry,
}

impl Engine {
    pub fn start(targets: u32) -> Engine {
        Engine::start_with(targets, |_| {})
    }

    pub fn start_with(targets: u32, change: impl FnOnce(&mut Options)) -> Engine {
        Engine::start_at(targets, SocketAddr::from(([127, 0, 0, 1], 0)), change)
    }

    pub fn start_at(targets: u32, listen: SocketAddr, change: impl FnOnce(&mut Options)) -> Engine {
        Engine::start_serving(targets, listen, |_| {}, change)
    }

    /// With further handlers, which are there before anybody is let in.
    pub fn start_serving(
        targets: u32,
        listen: SocketAddr,
        handlers_too: impl FnOnce(&Registry),
        change: impl FnOnce(&mut Options),
    ) -> Engine {
        let held = Held::default();
        let registry = Registry::new();
        registry
            .register_protocol(MODULE, 1, handlers(&held))
            .unwrap();
        handlers_too(&registry);
        let cpu = spdk_env::cpu::allowed().unwrap()[0];
        let options = ReactorOptions {
            cpus: vec![cpu, cpu],
            idle_latency_us: 50,
            pin: false,
            ..ReactorOptions::default()
        };
        let reactors = ReactorSet::start(&options).unwrap();
        let names: Vec<String> = (0..=targets).map(tag_name).collect();
        let threads: Vec<ThreadHandle> = names
            .iter()
            .enumerate()
            .map(|(at, name)| {
                let reactor = &reactors.reactors()[at % 2];
                reactor
                    .spawn_thread(name, ThreadOptions::default(), |_| {})
                    .unwrap()
            })
            .collect();
        let mut engine = Engine {
            server: None,
            reactors: Mutex::new(reactors),
            threads,
            held,
            registry,
        };
        let mut options = Options::default();
        change(&mut options);
        engine.server = Some(engine.serve(Some(listen), options).unwrap());
        engine
    }

    /// Starts a service on this engine's threads.
    pub fn serve(
        &self,
        listen: Option<SocketAddr>,
        options: Options,
    ) -> Result<RpcServer, engine_rpc::StartError> {
        let seats = self.threads.iter().enumerate().map(|(tag, thread)| Seat {
            name: thread.name().to_owned(),
            tag: Some(tag as u32),
            thread: thread.clone(),
        });
        RpcServer::start_on(seats.collect(), self.registry.clone(), listen, options)
    }

    pub fn server(&self) -> &RpcServer {
        self.server.as_ref().unwrap()
    }

    pub fn take_server(&mut self) -> RpcServer {
        self.server.take().unwrap()
    }

    pub fn addr(&self) -> SocketAddr {
        self.server().addr().unwrap()
    }

    pub fn name(&self, tag: u32) -> String {
        tag_name(tag)
    }

    pub fn client(&self, tag: u32) -> Client {
        Client::connect(self.addr(), tag).unwrap()
    }

    /// Runs an async function as a ULT of a tag's thread and waits for its result.
    pub fn run<T, F, Fut>(&self, tag: u32, f: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (sender, receiver) = channel();
        let start = move |thread: &Thread| {
            let task = async move {
                let result = f().await;
                let _ = sender.send(result);
            };
            drop(thread.spawn("test", task).unwrap());
        };
        self.threads[tag as usize].send(start).unwrap();
        receiver
            .recv_timeout(Duration::from_secs(60))
            .expect("the ULT ends")
    }

    pub fn held(&self) -> usize {
        self.held.lock().unwrap().len()
    }

    /// Answers the `count` requests held last, newest first, from this OS thread.
    pub fn release_held(&self, count: usize) {
        self.wait_for("requests to be held", |engine| engine.held() >= count);
        for _ in 0..count {
            let request = self.held.lock().unwrap().pop().unwrap();
            echo(request);
        }
    }

    /// Answers whatever is held; returns how many.
    pub fn release_some(&self) -> usize {
        let all = std::mem::take(&mut *self.held.lock().unwrap());
        let count = all.len();
        all.into_iter().for_each(echo);
        if count == 0 {
            std::thread::yield_now();
        }
        count
    }

    /// Waits until something is so; fails after a minute.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Engine) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_so(self) {
            assert!(Instant::now() < end, "waited a minute for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.close();
        }
        self.held.lock().unwrap().clear();
        let ended = self
            .reactors
            .get_mut()
            .unwrap()
            .shutdown(Duration::from_secs(20));
        if !std::thread::panicking() {
            ended.expect("the service leaves nothing on the threads");
        }
    }
}

fn tag_name(tag: u32) -> String {
    match tag {
        0 => "keel_sys_0".into(),
        tag => format!("keel_io_{}", tag - 1),
    }
}

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| {
            (i as u8)
                .wrapping_mul(31)
                .wrapping_add((i >> 8) as u8)
                .wrapping_add(seed)
        })
        .collect()
}

/// The bytes of one request.
pub fn frame(opcode: Opcode, tag: u32, request_id: u64, body: &[u8], bulk: &[u8]) -> Vec<u8> {
    let header = Header {
        opcode: opcode.0,
        tag,
        request_id,
        ..Header::default()
    };
    Outgoing::new(header, body, bulk)
        .slices()
        .flat_map(|s| s.to_vec())
        .collect()
}

/// A connection that has said nothing.
pub fn raw(engine: &Engine) -> TcpStream {
    let socket = TcpStream::connect(engine.addr()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket
}

/// A connection past its HELLO, to misbehave on.
pub fn hello(engine: &Engine, tag: u32) -> TcpStream {
    let mut socket = raw(engine);
    let hello = HelloRequest {
        protocol: PROTOCOL,
        tag,
    }
    .encode();
    socket
        .write_all(&frame(Opcode::HELLO, tag, 1, &hello, b""))
        .unwrap();
    let (header, ..) = read_frame(&mut socket).unwrap();
    assert_eq!(header.status, 0);
    socket
}

/// One frame: header, body, bulk.
pub fn read_frame(socket: &mut TcpStream) -> std::io::Result<(Header, Vec<u8>, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head)?;
    let header = Header::decode(&head).unwrap();
    let mut body = vec![0; header.body_len as usize];
    let mut bulk = vec![0; header.bulk_len as usize];
    socket.read_exact(&mut body)?;
    socket.read_exact(&mut bulk)?;
    Ok((header, body, bulk))
}
