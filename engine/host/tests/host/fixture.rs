//! An engine without a daemon: one system xstream, two targets on memory devices, RPC between them.
#![allow(unsafe_code, reason = "plays the loader")]

use bdev_malloc::MallocBdev;
use daos_errno::Der;
use engine_host::{Control, Host, HostOptions, QueryFuture, SetupError, TargetShare};
use engine_iv_service::Incast;
use engine_rpc::{Membership, RpcServer, Seat};
use engine_tls::KeyRegistry;
use engine_xstream::{
    Core, Layout, LayoutOptions, Role, StartOptions, Xstream, XstreamRef, XstreamSet, Xstreams,
};
use module_abi::dss_module;
use spdk_bdev::{Mode, Registry};
use spdk_reactor::{ReactorOptions, ReactorSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub const WAIT: Duration = Duration::from_secs(30);
pub const TARGETS: u32 = 2;
pub const BLOCK: u32 = 4096;
/// Blocks of one target's share.
pub const SHARE: u64 = 256;

/// Modules are statics: one engine at a time.
static ONE: Mutex<()> = Mutex::new(());

pub struct Engine {
    pub host: Host,
    pub drpc: engine_drpc::Registry,
    pub rpc: engine_rpc::Registry,
    pub keys: KeyRegistry,
    pub incast: Incast,
    modules: Vec<&'static dss_module>,
    running: Option<(XstreamSet, RpcServer)>,
    _one: MutexGuard<'static, ()>,
}

/// Answers method 1 with the body turned round, later; refuses the rest.
struct Mirror;

impl Control for Mirror {
    fn query(&self, method: u32, mut body: Vec<u8>) -> QueryFuture {
        Box::pin(async move {
            spdk_thread::yield_now().await;
            body.reverse();
            if method == 1 {
                Ok(body)
            } else {
                Err(Der::NOSYS)
            }
        })
    }
}

impl Engine {
    /// With a device for each target but the last.
    pub fn new(deadline: Duration) -> Engine {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, rpc, drpc) = (
            KeyRegistry::new(),
            engine_rpc::Registry::new(),
            engine_drpc::Registry::new(),
        );
        let incast = Incast::register_keys(&keys, engine_iv_service::Options::default()).unwrap();
        let calls = (rpc.clone(), drpc.clone());
        let mut options = HostOptions::new(keys.clone(), calls, incast.clone(), Arc::new(Mirror));
        options.system_ns = 77;
        options.targets = TARGETS;
        options.deadline = deadline;
        options.queue_depth = 32;
        options.shares = vec![Some(share()), None];
        let host = Host::new(options).unwrap();
        Engine {
            host,
            drpc,
            rpc,
            keys,
            incast,
            modules: vec![],
            running: None,
            _one: one,
        }
    }

    /// What the loader does: announce, init, register.
    pub fn load(&mut self, name: &str, module: &'static dss_module) -> Result<(), String> {
        self.host
            .announce(name, module)
            .map_err(|error| error.to_string())?;
        // SAFETY: nothing of the module runs yet.
        unsafe { module.sm_host.write(self.host.table()) };
        // SAFETY: on the main thread of the test, no xstream runs.
        let rc = unsafe { module.sm_init.unwrap()() };
        Der::check(rc).map_err(|der| der.to_string())?;
        self.host
            .register_module(name, module)
            .map_err(|error| error.to_string())?;
        self.modules.push(module);
        Ok(())
    }

    pub fn start(&mut self) {
        let cpu = spdk_env::cpu::allowed().unwrap()[0];
        let core = Core::alone(cpu, 0);
        let wanted = LayoutOptions {
            targets: TARGETS,
            helpers: 1,
            oversubscribe: true,
            ..LayoutOptions::default()
        };
        let layout = Layout::compute(&wanted, &[core]).unwrap();
        let reactors = ReactorSet::start(&ReactorOptions {
            cpus: vec![cpu],
            pin: false,
            ..ReactorOptions::default()
        })
        .unwrap();
        let set =
            XstreamSet::start(layout, reactors, &self.keys, &StartOptions::default()).unwrap();
        let seat = |xs: &XstreamRef| Seat {
            name: xs.name().to_owned(),
            tag: match xs.role() {
                Role::System => Some(0),
                Role::Main => xs.target().map(|target| target + 1),
                Role::Offload => None,
            },
            thread: xs.handle().clone(),
        };
        let seats = set.xstreams().all().iter().map(seat).collect();
        let rpc = RpcServer::start_on(
            seats,
            self.rpc.clone(),
            None,
            engine_rpc::Options::default(),
        )
        .unwrap();
        let alone = Membership::default();
        self.incast.start(set.xstreams(), (0, 1), &alone).unwrap();
        self.running = Some((set, rpc));
    }

    pub fn xstreams(&self) -> &Xstreams {
        self.running.as_ref().unwrap().0.xstreams()
    }

    pub fn system(&self) -> XstreamRef {
        self.xstreams().system().clone()
    }

    pub fn main(&self, target: u32) -> XstreamRef {
        self.xstreams().main(target).unwrap().clone()
    }

    /// Runs something on an xstream.
    pub fn on<T: Send + 'static>(
        &self,
        xs: &XstreamRef,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        xs.call_blocking("test", WAIT, move |_| f()).unwrap()
    }

    /// Runs a task on an xstream to its end.
    pub fn run<T, F, Fut>(&self, xs: &XstreamRef, f: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        xs.execute_blocking("test", WAIT, f).unwrap()
    }

    pub fn setup(&self) -> Result<(), SetupError> {
        let host = self.host.clone();
        self.run(&self.system(), move |xs| {
            let xs = xs.clone();
            async move { host.setup_all(&xs).await }
        })
    }

    pub fn cleanup(&self) -> Vec<String> {
        let host = self.host.clone();
        let failures = self.run(&self.system(), move |xs| {
            let xs = xs.clone();
            async move { host.cleanup_all(&xs).await }
        });
        failures.iter().map(ToString::to_string).collect()
    }

    /// Calls a handler from the system xstream.
    pub fn call(&self, tag: u32, opcode: u32, body: &[u8]) -> (i32, Vec<u8>) {
        let body = body.to_vec();
        self.run(&self.system(), move |_| async move {
            match engine_rpc::call(tag, opcode, body, None).await {
                Ok(reply) => (reply.status, reply.body),
                Err(der) => (der.neg(), vec![]),
            }
        })
    }

    /// Ends everything in order; what would not end fails the test.
    pub fn stop(mut self) {
        self.end();
        assert_eq!(
            (
                self.drpc.ids(),
                self.rpc.list().len(),
                self.keys.list().len()
            ),
            (vec![], 0, 2)
        );
    }

    fn end(&mut self) {
        if let Some((set, rpc)) = self.running.take() {
            self.incast.stop().unwrap();
            set.begin_shutdown(WAIT).unwrap();
            rpc.close();
            set.shutdown(WAIT, |_| ()).unwrap();
        }
        for module in self.modules.drain(..).rev() {
            self.host.unregister_module(module);
            // SAFETY: on the main thread of the test, xstreams ended.
            assert_eq!(unsafe { module.sm_fini.unwrap()() }, 0);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end(); // a failed test leaves the next one a clean start
    }
}

/// Blocks 100 to 100 + SHARE of a larger device.
fn share() -> TargetShare {
    let devices = Registry::new();
    let device = MallocBdev::new("mem", BLOCK, 1024).unwrap();
    devices.register(Arc::new(device)).unwrap();
    let descriptor = devices.open("mem", Mode::ReadWrite, "test").unwrap();
    TargetShare {
        descriptor,
        first_block: 100,
        num_blocks: SHARE,
        device_uuid: [7; 16],
        engine_uuid: [9; 16],
    }
}
