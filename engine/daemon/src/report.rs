//! What operators see: status, modules, devices, tasks.

use drpc_wire::keel;
use engine_devices::State;
use engine_watchdog::Running;
use engine_xstream::{Role, XstreamUlts};
use spdk_bdev::Op;
use spdk_reactor::Depth;
use spdk_thread::Period;

use crate::security;
use crate::state::Engine;

pub(crate) async fn status(engine: &Engine) -> keel::EngineStatus {
    let running = engine.running.get();
    keel::EngineStatus {
        state: engine.state().as_str().to_owned(),
        pid: std::process::id(),
        rank: engine.rank(),
        system: engine.config.engine.system.clone(),
        drpc_socket: engine.config.drpc.socket.display().to_string(),
        rpc_address: running.map(|r| r.rpc_address.clone()).unwrap_or_default(),
        metrics_address: running
            .map(|r| r.metrics_address.clone())
            .unwrap_or_default(),
        provider: engine.config.provider.as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        targets: targets(engine),
        xstreams: xstreams(engine).await,
        uptime_ms: engine.started.elapsed().as_millis() as u64,
        start_to_ready_ms: engine.ready_ms.get().copied().unwrap_or(0),
        phases: engine.phases.get().cloned().unwrap_or_default(),
        tls: security::describe(engine.security.as_ref()),
    }
}

fn targets(engine: &Engine) -> Vec<keel::Target> {
    let Some(running) = engine.running.get() else {
        return Vec::new();
    };
    let row = |(id, share): (usize, &crate::devices::Share)| {
        let xstream = running.xstreams.main(id as u32)?;
        Some(keel::Target {
            id: id as u32,
            xstream: xstream.id().0,
            cpu: xstream.cpu() as u32,
            device: share.descriptor.name().to_owned(),
            device_uuid: share.descriptor.bdev().uuid().to_string(),
            bytes_total: share.num_blocks * u64::from(share.descriptor.geometry().block_size),
            state: target_state(engine, share).to_owned(),
        })
    };
    engine
        .devices
        .shares
        .iter()
        .enumerate()
        .filter_map(row)
        .collect()
}

/// A target is as good as its device.
fn target_state(engine: &Engine, share: &crate::devices::Share) -> &'static str {
    let known = engine.devices.book.describe(share.descriptor.name());
    let is_down = [State::Evicted, State::Unplugged].map(State::as_str);
    if is_down.contains(&known.state) {
        "down"
    } else {
        "up"
    }
}

async fn xstreams(engine: &Engine) -> Vec<keel::Xstream> {
    let Some(running) = engine.running.get() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for xstream in running.xstreams.all() {
        // One that does not answer is shown all the same, with what is known without it.
        let counted = xstream.call("status", |here| {
            (here.stats(), here.thread().pollers().len())
        });
        let counted = spdk_thread::timeout(200_000_000, counted)
            .await
            .ok()
            .and_then(Result::ok);
        let (stats, pollers) = counted.unwrap_or_default();
        let reactor = running
            .reactors
            .iter()
            .find(|reactor| reactor.cpu() == Some(xstream.cpu()));
        let reactor = reactor.map(|reactor| reactor.stats()).unwrap_or_default();
        let role = match xstream.role() {
            Role::System => "system",
            Role::Main => "main",
            Role::Offload => "offload",
        };
        all.push(keel::Xstream {
            id: xstream.id().0,
            name: xstream.name().to_owned(),
            role: role.to_owned(),
            cpu: xstream.cpu() as u32,
            tasks: stats.ults as u32,
            pollers: pollers as u32,
            turns: stats.thread.turns,
            messages: stats.thread.messages,
            busy_ns: reactor.busy_ns,
            idle_ns: reactor.idle_ns(),
            sleeps: reactor.at(Depth::Nap).count + reactor.at(Depth::Sleep).count,
        });
    }
    all
}

pub(crate) fn modules(engine: &Engine) -> keel::ModulesList {
    let states = engine
        .running
        .get()
        .map(|running| running.host.modules())
        .unwrap_or_default();
    let modules = engine.modules.iter().map(|module| {
        let status = states.iter().find(|status| status.name == module.info.name);
        keel::Module {
            name: module.info.name.clone(),
            id: module.info.id as u32,
            version: module.info.version_text(),
            state: status
                .map_or("loaded", |status| status.state.text())
                .to_owned(),
            needs: module.info.needs.clone(),
            provides: module.info.provides.clone(),
            path: module.path.clone(),
            error: status
                .map(|status| status.error.clone())
                .unwrap_or_default(),
        }
    });
    keel::ModulesList {
        modules: modules.collect(),
    }
}

pub(crate) async fn devices(engine: &Engine) -> keel::Devices {
    engine.devices.book.look_now().await;
    let devices = engine.devices.registry.list().into_iter().map(|bdev| {
        let geometry = bdev.geometry();
        let known = engine.devices.book.describe(bdev.name());
        let path = engine
            .devices
            .paths
            .iter()
            .find(|(name, _)| name == bdev.name());
        keel::Device {
            name: bdev.name().to_owned(),
            uuid: bdev.uuid().to_string(),
            driver: bdev.driver().to_owned(),
            path: path.map(|(_, path)| path.clone()).unwrap_or_default(),
            block_size: geometry.block_size,
            num_blocks: geometry.num_blocks,
            targets: engine.devices.targets_of(bdev.name()),
            state: known.state.to_owned(),
            counters: [counters(engine, bdev.name()), known.counters].concat(),
            serial: known.serial,
            model: known.model,
            firmware: known.firmware,
            reason: known.reason,
            health: known.health,
            volatile_write_cache: known.write_cache,
            namespace: known.namespace,
            newest_errors: known.pages.errors,
            firmware_slots: known.pages.firmware,
            telemetry: known.pages.telemetry,
        }
    });
    let missing = engine
        .devices
        .book
        .unplugged()
        .into_iter()
        .map(|record| keel::Device {
            name: record.name,
            uuid: record.uuid.to_string(),
            targets: record.targets,
            state: State::Unplugged.as_str().to_owned(),
            serial: record.serial,
            model: record.model,
            reason: record.reason,
            ..keel::Device::default()
        });
    let strangers = engine.devices.book.strangers().into_iter();
    let strangers = strangers.map(|(address, new)| keel::Device {
        name: address.clone(),
        uuid: new.uuid.to_string(),
        driver: "nvme".to_owned(),
        path: address,
        state: State::New.as_str().to_owned(),
        serial: new.serial,
        model: new.model,
        firmware: new.firmware,
        reason: new.advice,
        ..keel::Device::default()
    });
    keel::Devices {
        devices: devices.chain(missing).chain(strangers).collect(),
    }
}

fn counters(engine: &Engine, device: &str) -> Vec<keel::Counter> {
    // Listed a moment ago; one removed since has no counters.
    let Ok(health) = engine.devices.registry.health(device) else {
        return Vec::new();
    };
    let named = [
        (Op::Read, "read"),
        (Op::Write, "write"),
        (Op::WriteZeroes, "write_zeroes"),
        (Op::Unmap, "unmap"),
        (Op::Flush, "flush"),
    ];
    let of_op = |(op, name): (Op, &str)| {
        let counts = health.of(op);
        let bytes = (op != Op::Flush).then(|| (format!("{name}_bytes"), counts.bytes));
        [
            Some((format!("{name}_ops"), counts.ops)),
            bytes,
            Some((format!("{name}_errors"), counts.errors)),
        ]
    };
    named
        .into_iter()
        .flat_map(of_op)
        .flatten()
        .map(|(name, value)| keel::Counter { name, value })
        .collect()
}

/// The host names modules' tasks and pollers `module:name`.
fn owner(name: &str) -> (String, String) {
    let (module, name) = name.split_once(':').unwrap_or(("", name));
    (module.to_owned(), name.to_owned())
}

/// What exists, and of xstreams that do not answer what the watchdog sees.
pub(crate) fn tasks(all: Vec<XstreamUlts>, seen: &[Running]) -> keel::Tasks {
    let mut list = keel::Tasks::default();
    for xstream in all {
        let Some(found) = xstream.found else {
            list.tasks.push(stuck(xstream.name, seen));
            continue;
        };
        list.tasks.extend(found.ults.iter().map(|ult| {
            let (ult, stack) = (&ult.task, ult.stack);
            let (module, name) = owner(ult.name);
            keel::Task {
                xstream: xstream.name.clone(),
                name,
                module,
                state: engine_watchdog::dump::state(ult),
                age_ms: ult.age_ns / 1_000_000,
                polls: ult.polls,
                started_at: ult.spawned_by.to_string(),
                stack_bytes: stack.map_or(0, |stack| stack.size as u64),
                stack_deepest_bytes: stack.map_or(0, |stack| stack.deepest as u64),
                trace: ult.trace,
            }
        }));
        list.pollers.extend(found.pollers.iter().map(|poller| {
            let (module, name) = owner(poller.name);
            keel::Poller {
                xstream: xstream.name.clone(),
                name,
                module,
                period_ns: match poller.period {
                    Period::EveryTurn => 0,
                    Period::Nanos(ns) => ns,
                },
                paused: poller.paused,
                calls: poller.calls,
                busy: poller.busy,
            }
        }));
    }
    list
}

fn stuck(xstream: String, seen: &[Running]) -> keel::Task {
    let running = seen.iter().find(|running| running.xstream == xstream);
    let (name, module, age_ms) = match running.and_then(|running| running.unit) {
        Some((unit, ms)) => {
            let (module, name) = owner(unit.name);
            (name, module, ms)
        }
        None => ("(no answer)".to_owned(), String::new(), 0),
    };
    keel::Task {
        xstream,
        name,
        module,
        state: "stuck: does not return".to_owned(),
        age_ms,
        ..keel::Task::default()
    }
}

/// The line that operators and scripts wait for.
pub(crate) fn say_ready(engine: &Engine) {
    let rpc = engine
        .running
        .get()
        .map(|running| running.rpc_address.as_str())
        .unwrap_or_default();
    tracing::info!(
        rank = engine.rank(),
        targets = engine.devices.shares.len(),
        drpc = %engine.config.drpc.socket.display(),
        rpc,
        "ready after {} ms",
        engine.ready_ms.get().copied().unwrap_or(0),
    );
}
