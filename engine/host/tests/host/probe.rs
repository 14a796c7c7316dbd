//! A module written with the SDK, as a module's author would: no unsafe code.

use module_sdk::iv::{
    self, IvChange, IvClass, IvHow, IvKey, IvPlace, IvRequest, IvSync, IvVar, IvVersion,
    register_class,
};
use module_sdk::sync::{Notify, Semaphore, remote};
use module_sdk::{
    Bdev, Counter, Der, DmaBuf, DrpcCall, DrpcReply, ModuleInfo, PerXstream, Reply, Request, Tag,
    Tags, TlsKey, UltHandle, UltOptions, Xs, block_on, collective, module_info, poller, query,
    rpc_call, sleep, sleep_ult, spawn, spawn_on, spawn_ult, tasklet, yield_now, yield_ult,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

module_sdk::module! {
    name: probe,
    id: 51,
    about: "uses all of the SDK",
    needs: ["raw"],
    provides: ["probing"],
    tls: STATE,
    init: init,
    fini: fini,
    setup: setup,
    cleanup: cleanup,
    rpc: {
        1 => {
            ECHO => echo, PANIC => panics, STORE => store, SPREAD => spread, CALL => call, REST => rest,
            FORGET => forget, POLL => polls, FLOOD => flood, COUNT => count, TASKLET => tasklets,
            STRAIGHT => straight, EVERYWHERE => everywhere, MIXED => mixed, SHARED => shared,
        },
        2 => { ECHO => echo },
    },
    drpc: { 101 => ask },
}

pub const ECHO: u32 = 1;
pub const PANIC: u32 = 2;
pub const STORE: u32 = 3;
pub const SPREAD: u32 = 4;
pub const CALL: u32 = 5;
pub const REST: u32 = 6;
pub const FORGET: u32 = 7;
pub const POLL: u32 = 8;
pub const FLOOD: u32 = 9;
pub const COUNT: u32 = 10;
pub const TASKLET: u32 = 11;
pub const STRAIGHT: u32 = 12;
pub const EVERYWHERE: u32 = 13;
pub const MIXED: u32 = 14;
pub const SHARED: u32 = 15;

pub const fn opcode(index: u32) -> u32 {
    51 << 24 | 1 << 16 | index
}

static STATE: TlsKey<State> = TlsKey::new();
/// Inits, setups, cleanups and finis, one byte each.
pub static LIFE: AtomicU32 = AtomicU32::new(0);
pub static TASKLETS: AtomicU32 = AtomicU32::new(0);

struct State {
    target: u32,
    requests: Cell<u64>,
    shown: Counter,
    bdev: RefCell<Option<Bdev>>, // ends with the xstream
    shared: Rc<Shared>,
}

/// Between tasks and ULTs of one xstream.
struct Shared {
    gate: Semaphore,
    bell: Notify,
    order: RefCell<Vec<u8>>,
}

impl PerXstream for State {
    const TAGS: Tags = Tags::TARGET;
    fn new(xstream: &ModuleInfo) -> Option<Self> {
        let target = xstream.target?;
        let shown = Counter::register("requests", "requests served", Some(target));
        Some(State {
            target,
            requests: Cell::new(0),
            shown,
            bdev: RefCell::default(),
            shared: Rc::new(Shared {
                gate: Semaphore::new(1),
                bell: Notify::new(),
                order: RefCell::default(),
            }),
        })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        assert_eq!(
            STATE.try_with(|state| state.target),
            None,
            "gone while its destructor runs"
        );
    }
}

fn init() -> Result<(), Der> {
    LIFE.fetch_add(1, Ordering::AcqRel);
    module_sdk::info!("init");
    register_class(Greeting { heard: 0 })?;
    Ok(())
}

fn fini() -> Result<(), Der> {
    LIFE.fetch_add(1 << 24, Ordering::AcqRel);
    Ok(())
}

async fn setup() -> Result<(), Der> {
    LIFE.fetch_add(1 << 8, Ordering::AcqRel);
    sleep(Duration::from_micros(50)).await;
    let own = rpc_call(Tag::Target(0), opcode(ECHO), b"setup", DmaBuf::empty()).await?;
    assert_eq!(own.body, b"setup");
    Ok(())
}

async fn cleanup() -> Result<(), Der> {
    LIFE.fetch_add(1 << 16, Ordering::AcqRel);
    Ok(())
}

async fn echo(request: Request) -> Reply {
    STATE.try_with(|state| {
        state.requests.set(state.requests.get() + 1);
        state.shown.add(1);
    });
    let bulk = request.take_bulk();
    assert!(request.take_bulk().is_empty(), "only once");
    Reply::ok()
        .with_body(request.body().to_vec())
        .with_bulk(bulk)
}

async fn count(_: Request) -> Reply {
    Reply::ok().with_body(
        STATE
            .with(|state| state.requests.get())
            .to_le_bytes()
            .to_vec(),
    )
}

async fn panics(_: Request) -> Reply {
    yield_now().await;
    panic!("as asked")
}

async fn open() -> Result<Bdev, Der> {
    let bdev = Bdev::open()?;
    STATE.with(|state| *state.bdev.borrow_mut() = Some(bdev.clone()));
    Ok(bdev)
}

async fn store(request: Request) -> Result<Reply, Der> {
    let bdev = open().await?;
    let block = bdev.info().block_size;
    let mut buf = DmaBuf::alloc(block as usize)?;
    buf[..request.body().len()].copy_from_slice(request.body());
    let (written, buf) = bdev.write(5, 1, buf, true).await;
    written?;
    bdev.flush().await?;
    bdev.unmap(6, 1).await?;
    let (read, buf) = bdev.read(5, 1, buf).await;
    read?;
    let len = request.body().len();
    let reply = Reply::ok().with_body(buf[..len].to_vec());
    bdev.write_zeroes(5, 1).await?;
    let (read, buf) = bdev.read(5, 1, buf).await;
    read?;
    assert!(buf.iter().all(|byte| *byte == 0));
    let (outside, _) = bdev.read(bdev.info().num_blocks, 1, buf).await;
    assert_eq!(outside, Err(Der::INVAL));
    Ok(reply)
}

/// Each target says who it is.
async fn spread(_: Request) -> Result<Reply, Der> {
    let mut seen = Vec::new();
    for target in 0..module_sdk::targets() {
        let who = spawn_on(Xs::Target(target), "who", || async {
            yield_now().await;
            module_info().and_then(|info| info.target)
        })?;
        seen.push(who.await?.map_or(99, |t| t as u8));
    }
    let system = spawn_on(Xs::System, "who", || async {
        module_info().is_some_and(|info| info.target.is_none())
    })?;
    seen.push(u8::from(system.await?));
    let offload = spawn_on(Xs::Offload(0), "sum", || async { (1..=4u8).sum::<u8>() })?;
    seen.push(offload.await?);
    let lost = spawn_on(Xs::Target(0), "bad", || async { panic!("as asked") })?;
    assert_eq!(
        lost.await,
        Err::<(), _>(module_sdk::JoinError::Panicked("as asked".into()))
    );
    assert_eq!(
        spawn_on(Xs::Target(9), "none", || async {}).err(),
        Some(Der::INVAL)
    );
    Ok(Reply::ok().with_body(seen))
}

async fn call(request: Request) -> Result<Reply, Der> {
    let mut bulk = DmaBuf::alloc(10_000)?;
    bulk.fill(3);
    let answer = rpc_call(Tag::Target(1), opcode(ECHO), request.body(), bulk).await?;
    assert!(answer.bulk.len() == 10_000 && answer.bulk.iter().all(|b| *b == 3));
    let refused = rpc_call(Tag::Target(7), opcode(ECHO), b"", DmaBuf::empty()).await;
    assert_eq!(refused.unwrap_err().der, Der::BAD_TARGET);
    assert!(query(1, b"").await.is_err(), "not on a main xstream");
    Ok(Reply::ok().with_body(answer.body))
}

async fn rest(_: Request) -> Result<Reply, Der> {
    let started = module_sdk::now_ns();
    let other = spawn("other", async {
        sleep(Duration::from_millis(2)).await;
        "rested"
    })?;
    drop(sleep(Duration::from_secs(3600)));
    let text = other.await?;
    assert!(module_sdk::now_ns() - started >= 2_000_000);
    Ok(Reply::ok().with_body(text.as_bytes().to_vec()))
}

/// Drops an I/O that is in flight; its buffer comes back to the engine all the same.
async fn forget(_: Request) -> Result<Reply, Der> {
    let bdev = open().await?;
    for _ in 0..64 {
        drop(bdev.read(0, 1, DmaBuf::alloc(4096)?));
        yield_now().await;
    }
    Ok(Reply::ok())
}

/// A poller that ends itself at the third call.
async fn polls(_: Request) -> Result<Reply, Der> {
    let (calls, own) = (Rc::new(Cell::new(0u8)), Rc::new(RefCell::new(None)));
    let (seen, mine) = (Rc::clone(&calls), Rc::clone(&own));
    let registered = poller("three", Duration::ZERO, move || {
        seen.set(seen.get() + 1);
        if seen.get() == 3 {
            mine.borrow_mut().take();
        }
        true
    })?;
    *own.borrow_mut() = Some(registered);
    while own.borrow().is_some() {
        yield_now().await;
    }
    for _ in 0..10 {
        yield_now().await;
    }
    Ok(Reply::ok().with_body(vec![calls.get()]))
}

/// More I/O than the queue holds: all of it ends, in any order.
async fn flood(_: Request) -> Result<Reply, Der> {
    let bdev = open().await?;
    let mut reads = Vec::new();
    for lba in 0..200 {
        reads.push(bdev.read(lba, 1, DmaBuf::alloc(4096)?));
    }
    for read in reads.into_iter().rev() {
        read.await.0?;
    }
    Ok(Reply::ok())
}

async fn tasklets(_: Request) -> Result<Reply, Der> {
    tasklet(Xs::Target(1), "count", || {
        TASKLETS.fetch_add(1, Ordering::AcqRel);
    })?;
    Ok(Reply::ok())
}

/// Block I/O and an RPC in straight-line code; ULTs that are joined, woken, aborted, and one that panics.
async fn straight(request: Request) -> Result<Reply, Der> {
    let refused = block_on(async {});
    assert_eq!(refused, Err(Der::OP_NOT_PERMITTED), "a task awaits");
    assert!(yield_ult() && sleep_ult(Duration::ZERO).is_err() && UltHandle::of_this().is_err());
    let (options, body) = (UltOptions::default(), request.body().to_vec());
    let ult = spawn_ult(Xs::Current, "straight", options, move || {
        let bdev = Bdev::open()?;
        let mut buf = DmaBuf::alloc(bdev.info().block_size as usize)?;
        buf[..body.len()].copy_from_slice(&body);
        let (written, buf) = block_on(bdev.write(7, 1, buf, false))?;
        written?;
        let (read, buf) = block_on(bdev.read(7, 1, buf))?;
        read?;
        let echo = rpc_call(
            Tag::Target(1),
            opcode(ECHO),
            &buf[..body.len()],
            DmaBuf::empty(),
        );
        let echoed = block_on(echo)??;
        let sleeper = spawn_ult(Xs::Target(1), "sleeper", options, || {
            let woken = sleep_ult(Duration::from_secs(3600));
            while !yield_ult() {}
            woken
        })?;
        sleeper.handle().wake()?;
        assert!(!yield_ult());
        sleeper.handle().abort()?;
        // Woken by either, or aborted before it slept.
        assert!(sleeper.join()?.is_ok());
        let bad = spawn_ult(Xs::System, "bad", options, || panic!("as asked"))?;
        assert_eq!(bad.join().err(), Some::<Der>(Der::MISC));
        assert_eq!(
            spawn_ult(Xs::Target(9), "none", options, || ()).err(),
            Some(Der::INVAL)
        );
        assert_eq!(
            spawn_ult(Xs::Current, "", options, || ()).err(),
            Some(Der::INVAL)
        );
        Ok::<_, Der>(echoed.body)
    })?;
    Ok(Reply::ok().with_body(ult.await??))
}

/// A task and a ULT of one xstream share a lock and a bell; a ULT of another xstream gives the ULT a value, and the task one.
async fn mixed(_: Request) -> Result<Reply, Der> {
    let shared = STATE.with(|state| Rc::clone(&state.shared));
    let held = shared.gate.acquire().await;
    let ((to_ult, value), (to_task, task_value)) = (remote::channel(), remote::channel());
    let ult = spawn_ult(Xs::Current, "mixed", UltOptions::default(), move || {
        let shared = STATE.with(|state| Rc::clone(&state.shared));
        shared.order.borrow_mut().push(1);
        let permit = block_on(shared.gate.acquire())?;
        shared.order.borrow_mut().push(3);
        shared.bell.notify_all();
        let value = block_on(value)?;
        drop(permit);
        Ok::<Option<u8>, Der>(value)
    })?;
    while shared.order.borrow().is_empty() {
        yield_now().await;
    }
    yield_now().await;
    shared.order.borrow_mut().push(2); // the ULT waits for the lock
    let rang = shared.bell.notified();
    drop(held);
    rang.await;
    spawn_ult(Xs::Target(1), "gives", UltOptions::default(), move || {
        to_ult.send(4);
        to_task.send(5);
    })?;
    let waits_for_the_ult = shared.gate.acquire().await;
    drop(waits_for_the_ult);
    let mut order = shared.order.take();
    order.extend(ult.await??);
    order.extend(task_value.await);
    Ok(Reply::ok().with_body(order))
}

/// A class whose hooks say no, answer and panic by the value.
struct Greeting {
    heard: u32,
}

impl IvClass for Greeting {
    type Value = String;
    const ID: u32 = 310;
    const NAME: &'static str = "greeting";

    fn fetch(&mut self, at: &IvPlace, key: &IvKey, _: Option<String>) -> Result<String, Der> {
        assert!(at.root);
        let name = std::str::from_utf8(key.bytes()).map_err(|_| Der::INVAL)?;
        Ok(format!("hello {name}, the {}", self.heard))
    }

    fn update(
        &mut self,
        _: &IvPlace,
        _: &IvKey,
        change: IvChange<String>,
        request: IvRequest,
    ) -> Result<IvChange<String>, Der> {
        assert_ne!(change, IvChange::Set("panic".into()), "as asked");
        assert!(request.number > 0);
        self.heard += 1;
        Ok(change)
    }

    fn valid(&self, _: &IvKey, version: IvVersion) -> bool {
        version.term > 0
    }
}

/// A variable: fetched, changed, read on another target, refused by a panic.
async fn shared(_: Request) -> Result<Reply, Der> {
    const WITHIN: Duration = Duration::from_secs(10);
    let ns = [8; 16];
    assert_eq!(u128::from_le_bytes(iv::system_namespace()), 77);
    iv::create(ns, false).await?;
    let key = IvKey::new(Greeting::ID, b"all")?;
    let var = IvVar::<String>::new(ns, key);
    assert!(var.get().is_none());
    assert_eq!(*var.fetch(WITHIN).await?, "hello all, the 0");
    let (there, heard) = remote::channel();
    let other = spawn_on(Xs::Target(1), "reader", move || async move {
        let var = IvVar::<String>::new(ns, key);
        var.fetch(WITHIN).await?;
        there.send(());
        while var.get().is_some_and(|text| *text != "news") {
            yield_now().await;
        }
        Ok::<_, Der>(
            var.look()
                .map(|(version, text)| (version, text.to_string())),
        )
    })?;
    heard.await;
    let eager = IvHow::new(IvSync::Eager, WITHIN).to_root();
    let version = var.update(&"news".to_owned(), eager).await?;
    assert_eq!(other.await??, Some((version, "news".to_owned())));
    let first = var.get().ok_or(Der::NONEXIST)?;
    assert!(
        Rc::ptr_eq(&first, &var.fetch(WITHIN).await?),
        "read from its bytes once"
    );
    let refused = var.update(&"panic".to_owned(), eager).await;
    assert_eq!(refused.map_err(|failure| failure.der), Err(Der::MISC));
    assert_eq!(var.get().as_deref().map(String::as_str), Some("news"));
    assert!(var.invalidate(eager).await? > version);
    assert_eq!(*var.fetch(WITHIN).await?, "hello all, the 2");
    let nobody = IvVar::<String>::new([9; 16], key).fetch(WITHIN).await;
    assert_eq!(nobody.map_err(|failure| failure.der), Err(Der::NONEXIST));
    iv::destroy(ns).await?;
    assert_eq!(iv::destroy(ns).await, Err(Der::NONEXIST));
    Ok(Reply::ok())
}

/// Each target is asked; the second fails.
async fn everywhere(_: Request) -> Result<Reply, Der> {
    let mut told = Vec::new();
    let mine = |target: u32| Ok(target as u8 + 10);
    let work = |given: u8| async move {
        yield_now().await;
        match module_info().and_then(|info| info.target) {
            Some(1) => Err(Der::NOSPACE),
            _ => Ok(given),
        }
    };
    let first = collective("all", None, mine, work, |target, result| {
        told.push((target, result))
    });
    assert_eq!(first.await, Err(Der::NOSPACE));
    assert_eq!(told, [(0, Some(Ok(10))), (1, Some(Err(Der::NOSPACE)))]);
    told.clear();
    let some = collective("some", Some(&[1]), mine, work, |target, result| {
        told.push((target, result))
    });
    assert_eq!(some.await, Ok(()));
    assert_eq!(told, [(0, Some(Ok(10))), (1, None)]);
    Ok(Reply::ok())
}

async fn ask(call: DrpcCall) -> DrpcReply {
    match query(call.method().unsigned_abs(), call.body()).await {
        Ok(answer) => DrpcReply::success(answer),
        Err(_) => module_sdk::DrpcStatus::Failure.into(),
    }
}
