//! The start table: each phase by name, in order. What has started is stopped in reverse when a later phase fails.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use drpc_wire::control::ControlServer;
use drpc_wire::discovery::Announcement;
use drpc_wire::srv::NotifyReadyReq;
use engine_config::{Config, Document};
use engine_drpc::{DrpcServer, DrpcService, DrpcSocket};
use engine_host::{Host, HostOptions, TargetShare};
use engine_iv_service::Incast;
use engine_loader::Modules;
use engine_membership::Source;
use engine_placement::Plan;
use engine_rpc::{Heartbeat, RpcServer};
use engine_telemetry::MetricsServer;
use engine_telemetry::log::LogControl;
use engine_tls::KeyRegistry;
use engine_watchdog::Watchdog;
use engine_xstream::{Layout, StartOptions, Xstream, XstreamSet, Xstreams};
use spdk_env::core_lock::CoreLocks;
use spdk_env::cpu::{Host as Machine, Topology};
use spdk_reactor::ReactorSet;

use crate::cli::Cli;
use crate::control::{EngineControl, set_up};
use crate::cores;
use crate::devices::Devices;
use crate::dma_memory;
use crate::error::BootError;
use crate::events::{Event, Events};
use crate::group::{self, GroupKeeper, Place};
use crate::host_check;
use crate::identity::Identity;
use crate::libspdk::{Libspdk, PROVIDERS};
use crate::phases::Phases;
use crate::roll_call;
use crate::security::{self, CertificateWatch};
use crate::state::{Engine, ModuleEntry, Parts, Running, State};
use crate::watch;
use crate::wiring;

/// How long the control server may take to answer that it heard of us.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// For the system xstream to take over the dRPC socket.
const INSTALL_DEADLINE: Duration = Duration::from_secs(5);
/// How long all modules' setups may take together; each has a deadline of its own below that.
const SETUP_DEADLINE: Duration = Duration::from_secs(600);

/// A running engine: everything that stop.rs takes down again.
pub(crate) struct Booted {
    pub(crate) engine: Arc<Engine>,
    pub(crate) events: Receiver<Event>,
    pub(crate) log: LogControl,
    pub(crate) host: Host,
    pub(crate) modules: Modules,
    pub(crate) xstreams: Option<XstreamSet>,
    pub(crate) watchdog: Option<Watchdog>,
    pub(crate) drpc: Option<DrpcService>,
    pub(crate) rpc: Option<RpcServer>,
    /// Ends with this.
    pub(crate) _certificate: Option<CertificateWatch>,
    pub(crate) metrics: Option<MetricsServer>,
    pub(crate) announcement: Option<Announcement>,
    pub(crate) source: Option<Box<dyn Source>>,
    pub(crate) libspdk: Option<Libspdk>,
    /// Free again when nothing runs on them any more.
    pub(crate) _cores: Option<CoreLocks>,
    /// Last to go: whoever gets the lock must find nothing of us.
    pub(crate) _identity: Identity,
}

/// Starts everything that the command line asks for.
pub(crate) fn boot(cli: &Cli) -> Result<Booted, BootError> {
    let mut phases = Phases::new();
    let topology = phases
        .run("topology", Topology::discover)
        .map_err(BootError::system)?;
    let config = phases.run("config", || configuration(cli, &topology))?;
    let log = phases
        .run("log", || engine_telemetry::log::init(&wiring::log(&config)))
        .map_err(BootError::system)?;
    let result = start(config, topology, log.clone(), phases);
    if result.is_err() {
        // The lines that explain it are worth more than the wait.
        log.flush(Duration::from_secs(1));
    }
    result
}

fn configuration(cli: &Cli, topology: &Topology) -> Result<Config, BootError> {
    let mut document = Document::load(&cli.config).map_err(BootError::config)?;
    for set in &cli.sets {
        document.apply_set(set);
    }
    document
        .finish(Some(&engine_placement::machine(topology, PROVIDERS)))
        .map_err(BootError::config)
}

fn start(
    config: Config,
    topology: Topology,
    log: LogControl,
    mut phases: Phases,
) -> Result<Booted, BootError> {
    engine_telemetry::install();
    let (sender, events) = phases
        .run("signals", Events::start)
        .map_err(BootError::system)?;
    let identity = phases
        .run("storage directory", || {
            Identity::open(&config.engine.storage_dir)
        })
        .map_err(BootError::cannot_use)?;
    let plan = phases
        .run("layout", || Plan::make(&config, &Machine::this(), topology))
        .map_err(BootError::config)?;
    let cores = phases.run("core locks", || cores::claim(&config, &plan.layout.cpus()))?;
    let registries = Registries::new().map_err(BootError::software)?;
    let place = phases.run("rank", || group::place(&config, &identity))?;
    phases.run("host check", || host_check::look(&config))?;
    let mut libspdk = phases.run("spdk", || Libspdk::start(&config, &plan.layout.cpus()))?;
    let (engine, mut modules) = assemble(
        config,
        (&plan, libspdk.as_mut()),
        (&identity, &place),
        (sender, log.clone()),
        &registries,
        &mut phases,
    )?;

    let host = phases
        .run("host", || host(&engine, &registries))
        .map_err(BootError::system)?;
    phases
        .run("module init", || modules.init(&host))
        .map_err(|error| BootError::config(format!("{error}\n  cure: {}", error.cure())))?;

    // From here on a failure has something to stop.
    let mut booted = Booted {
        engine,
        events,
        log,
        host,
        modules,
        xstreams: None,
        watchdog: None,
        drpc: None,
        rpc: None,
        _certificate: None,
        metrics: None,
        announcement: None,
        source: place.source,
        libspdk,
        _cores: cores,
        _identity: identity,
    };
    let served = serve(&mut booted, plan.layout, &registries, &mut phases);
    let _ = booted.engine.phases.set(phases.into_list());
    match served {
        Ok(()) => Ok(booted),
        Err(error) => {
            booted.stop();
            Err(error)
        }
    }
}

/// Opens what the engine is made of: its devices and its modules.
fn assemble(
    config: Config,
    (plan, mut libspdk): (&Plan, Option<&mut Libspdk>),
    (identity, place): (&Identity, &Place),
    (events, log): (Events, LogControl),
    registries: &Registries,
    phases: &mut Phases,
) -> Result<(Arc<Engine>, Modules), BootError> {
    let security = phases.run("tls", || security::load(&config))?;
    phases.run("dma memory", || dma_memory::set_aside(&config))?;
    if let Some(libspdk) = &mut libspdk {
        libspdk.register_memory()?;
    }
    let devices = phases.run("devices", || Devices::open(&config, libspdk.as_deref()))?;
    let modules = phases
        .run("module load", || {
            Modules::load(&config.modules.load, &wiring::module_path(&config))
        })
        .map_err(BootError::config)?;
    let entries = modules.iter().map(|(module, _)| ModuleEntry {
        info: module.info().clone(),
        path: module.path().display().to_string(),
    });
    let membership = group::membership(place, identity.incarnation);
    let group = GroupKeeper::new(&config, &membership, &registries.incast, identity.uuid)
        .map_err(BootError::system)?;
    let parts = Parts {
        rank: place.rank,
        membership,
        group,
        incast: registries.incast.clone(),
        security,
        config,
        topology: plan.report(),
        uuid: identity.uuid,
        started: phases.started(),
        events,
        log,
        devices,
        modules: entries.collect(),
    };
    Ok((Engine::new(parts), modules))
}

/// Where modules' keys and handlers go, and their shared variables.
struct Registries {
    keys: KeyRegistry,
    rpc: engine_rpc::Registry,
    drpc: engine_drpc::Registry,
    incast: Incast,
}

impl Registries {
    fn new() -> Result<Registries, engine_tls::TlsError> {
        let keys = KeyRegistry::default();
        let incast = Incast::register_keys(&keys, engine_iv_service::Options::default())?;
        Ok(Registries {
            keys,
            rpc: engine_rpc::Registry::default(),
            drpc: engine_drpc::Registry::default(),
            incast,
        })
    }
}

fn host(engine: &Arc<Engine>, registries: &Registries) -> Result<Host, engine_host::HostError> {
    let control = Arc::new(EngineControl(engine.clone()));
    let calls = (registries.rpc.clone(), registries.drpc.clone());
    let (keys, incast) = (registries.keys.clone(), registries.incast.clone());
    let mut options = HostOptions::new(keys, calls, incast, control);
    options.system_ns = group::namespace(&engine.config.engine.system);
    options.targets = engine.config.engine.targets;
    options.shares = engine
        .devices
        .shares
        .iter()
        .map(|share| {
            Some(TargetShare {
                descriptor: share.descriptor.clone(),
                first_block: share.first_block,
                num_blocks: share.num_blocks,
                device_uuid: share.descriptor.bdev().uuid().into_bytes(),
                engine_uuid: engine.uuid.into_bytes(),
            })
        })
        .collect();
    Host::new(options)
}

fn serve(
    booted: &mut Booted,
    layout: Layout,
    registries: &Registries,
    phases: &mut Phases,
) -> Result<(), BootError> {
    let engine = booted.engine.clone();
    let config = &engine.config;
    let reactors = phases
        .run("reactors", || {
            ReactorSet::start(&wiring::reactors(config, layout.cpus()))
        })
        .map_err(BootError::system)?;
    let handles = reactors.reactors().to_vec();
    let options = StartOptions {
        provider: booted.libspdk.as_ref().map(Libspdk::threads),
        ..StartOptions::default()
    };
    let set = phases
        .run("xstreams", || {
            XstreamSet::start(layout, reactors, &registries.keys, &options)
        })
        .map_err(BootError::software)?;
    let xstreams = set.xstreams().clone();
    booted.xstreams = Some(set);
    let watchdog = phases
        .run("watchdog", || watch::start(&engine, &xstreams, &handles))
        .map_err(BootError::system)?;
    let view = watchdog.view();
    booted.watchdog = Some(watchdog);

    let (rpc_address, heartbeat) = start_rpc(booted, registries, &xstreams, phases)?;
    if let Some(address) = config.telemetry.metrics_listen {
        booted.metrics = Some(
            phases
                .run("metrics", || engine_telemetry::serve_http(address))
                .map_err(BootError::cannot_use)?,
        );
    }
    let metrics_address = booted
        .metrics
        .as_ref()
        .map(|metrics| metrics.addr().to_string())
        .unwrap_or_default();
    let running = Running {
        xstreams: xstreams.clone(),
        reactors: handles,
        view,
        host: booted.host.clone(),
        rpc_address,
        metrics_address,
        heartbeat,
    };
    let _ = engine.running.set(running);
    engine.set_state(State::AwaitingSetup);

    booted.drpc = Some(phases.run("drpc", || listen(config, registries, &xstreams))?);
    // Tools find the engine from here on; `keel engine ready --wait` waits for the rest.
    booted.announcement = announce(config);
    match &config.drpc.control_server {
        Some(socket) => phases.run("notify control server", || notify(&engine, socket)),
        None => phases.run("module setup", || set_up_now(&engine, &xstreams)),
    }
}

/// The data channel, and this engine among others: its address, and who watches them.
fn start_rpc(
    booted: &mut Booted,
    registries: &Registries,
    xstreams: &Xstreams,
    phases: &mut Phases,
) -> Result<(String, Option<Heartbeat>), BootError> {
    let engine = booted.engine.clone();
    let config = &engine.config;
    group::register(&engine, &registries.rpc)?;
    roll_call::register(&engine, &registries.rpc)?;
    let (security, slow) = (engine.security.clone(), &engine.devices.slow);
    let options = wiring::rpc(config, &engine.membership, security, slow);
    let (registry, listen) = (registries.rpc.clone(), Some(config.rpc.listen));
    let rpc = phases
        .run("rpc", || {
            RpcServer::start(xstreams, registry, listen, options)
        })
        .map_err(BootError::cannot_use)?;
    if let Some(security) = &engine.security {
        let (identity, server) = (
            security.identity.clone(),
            config.drpc.control_server.clone(),
        );
        let watch = CertificateWatch::start(identity, config.tls.warn_days, server, engine.rank());
        booted._certificate = Some(watch.map_err(BootError::system)?);
    }
    let listens = rpc.addr();
    let address = listens.map(|addr| addr.to_string()).unwrap_or_default();
    booted.rpc = Some(rpc);
    let source = booted.source.as_mut();
    let heartbeat = phases.run("group", || group::start(&engine, xstreams, source, listens))?;
    Ok((address, heartbeat))
}

fn listen(
    config: &Config,
    registries: &Registries,
    xstreams: &Xstreams,
) -> Result<DrpcService, BootError> {
    if let Some(folder) = config
        .drpc
        .socket
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder)
            .map_err(|e| BootError::cannot_use(format!("{}: {e}", folder.display())))?;
    }
    let (registry, options) = (registries.drpc.clone(), wiring::drpc(config));
    let socket =
        DrpcSocket::bind(&config.drpc.socket, options.mode).map_err(BootError::cannot_use)?;
    let install = move |xstream: &Xstream| {
        engine_drpc::install(DrpcServer::new(socket, registry, options), xstream)
    };
    xstreams
        .system()
        .call_blocking("install dRPC", INSTALL_DEADLINE, install)
        .map_err(BootError::software)
}

/// A failure costs the tools' convenience, not the service.
fn announce(config: &Config) -> Option<Announcement> {
    match Announcement::new(&config.drpc.socket) {
        Ok(announcement) => Some(announcement),
        Err(error) => {
            tracing::warn!(%error, "tools will not find this engine by themselves: give them --socket");
            None
        }
    }
}

fn notify(engine: &Engine, socket: &std::path::Path) -> Result<(), BootError> {
    let running = engine.running.get();
    let request = NotifyReadyReq {
        uri: running
            .map(|r| format!("tcp://{}", r.rpc_address))
            .unwrap_or_default(),
        nctxs: 1 + engine.config.engine.targets,
        drpc_listener_sock: engine.config.drpc.socket.display().to_string(),
        ntgts: engine.config.engine.targets,
        // The same that heartbeats say; no clock can turn it back.
        incarnation: engine.membership.incarnation(),
        ..NotifyReadyReq::default()
    };
    ControlServer::new(socket, Some(NOTIFY_TIMEOUT))
        .notify_ready(&request)
        .map_err(|error| {
            BootError::cannot_use(format!(
                "the control server at {} does not hear us: {error}",
                socket.display()
            ))
        })?;
    tracing::info!(control_server = %socket.display(), "waiting for SET_UP");
    Ok(())
}

fn set_up_now(engine: &Arc<Engine>, xstreams: &Xstreams) -> Result<(), BootError> {
    let own = engine.clone();
    let done = xstreams
        .system()
        .execute_blocking("set up", SETUP_DEADLINE, move |_| async move {
            set_up(&own).await
        });
    // A module that failed is in the log and in `keel modules`; the engine stays, so that SET_UP can be sent again.
    done.map(|_| ()).map_err(BootError::software)
}
