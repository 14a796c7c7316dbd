//! Answers what modules, and through `mgmt` operators and the control server, ask the engine itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use daos_errno::Der;
use drpc_wire::mgmt::{
    DaosResp, GetGroupStatusReq, GetGroupStatusResp, GroupUpdateReq, GroupUpdateResp, SetRankReq,
};
use drpc_wire::{Message, keel, methods};
use engine_host::{Control, QueryFuture};

use crate::group;
use crate::iv;
use crate::report;
use crate::roll_call;
use crate::state::{Engine, NO_RANK, State};

/// How long a list of tasks waits for an xstream that does not answer.
const TASKS_WAIT_NS: u64 = 1_000_000_000;

/// The engine's side of [`Control`].
pub(crate) struct EngineControl(pub(crate) Arc<Engine>);

impl Control for EngineControl {
    fn query(&self, method: u32, body: Vec<u8>) -> QueryFuture {
        let engine = self.0.clone();
        Box::pin(async move {
            let method = i32::try_from(method).map_err(|_| Der::NOSYS)?;
            answer(&engine, method, &body).await
        })
    }
}

async fn answer(engine: &Arc<Engine>, method: i32, body: &[u8]) -> Result<Vec<u8>, Der> {
    Ok(match method {
        methods::ENGINE_STATUS => report::status(engine).await.encode_to_vec(),
        methods::ENGINE_READY => ready(engine.state()).encode_to_vec(),
        methods::ENGINE_SHUTDOWN => {
            let _: keel::ShutdownReq = decode(body)?;
            engine.events.request_shutdown();
            keel::Ack::default().encode_to_vec()
        }
        methods::MODULES_LIST => report::modules(engine).encode_to_vec(),
        methods::METRICS => metrics(engine).await.encode_to_vec(),
        methods::DEVICES => report::devices(engine).await.encode_to_vec(),
        methods::DEVICE_SET_FAULTY => {
            let request: keel::DeviceSetFaulty = decode(body)?;
            engine
                .devices
                .book
                .set_faulty(&request.uuid)
                .await
                .encode_to_vec()
        }
        methods::DEVICE_REPLACE => {
            let request: keel::DeviceReplace = decode(body)?;
            let book = &engine.devices.book;
            book.replace(&request.old_uuid, &request.new_uuid)
                .await
                .encode_to_vec()
        }
        methods::TASKS => tasks(engine).await.encode_to_vec(),
        methods::SLOW => engine.devices.slow.list().encode_to_vec(),
        methods::LOG_SET_MASK => {
            set_mask(engine, &decode::<keel::LogSetMaskReq>(body)?.mask).encode_to_vec()
        }
        methods::CONFIG_EFFECTIVE => keel::ConfigEffective {
            toml: engine.config.effective_toml(),
        }
        .encode_to_vec(),
        methods::ENGINE_TOPOLOGY => engine.topology.encode_to_vec(),
        methods::GROUP_STATUS => group::status(engine).await.encode_to_vec(),
        methods::GROUP_CHECK => {
            let request: keel::GroupCheckReq = decode(body)?;
            roll_call::check(engine, request.limit_ms)
                .await?
                .encode_to_vec()
        }
        methods::IV_LIST => {
            let request: keel::IvListReq = decode(body)?;
            iv::list(engine, request.most).await?.encode_to_vec()
        }
        methods::GROUP_UPDATE => {
            let request: GroupUpdateReq = decode(body)?;
            let status = Der::rc(engine.group.update(&request));
            GroupUpdateResp { status }.encode_to_vec()
        }
        methods::GROUP_STATUS_GET => {
            let request: GetGroupStatusReq = decode(body)?;
            group_status(group::dead_ranks(engine, request.map_version))
        }
        methods::IV_TRACE => iv::trace(engine, &decode(body)?).await?.encode_to_vec(),
        methods::SET_RANK => daos(set_rank(engine, decode::<SetRankReq>(body)?.rank)),
        methods::SET_UP => daos(set_up(engine).await),
        methods::PREP_SHUTDOWN => {
            tracing::info!("the control server announced a shutdown");
            daos(Ok(()))
        }
        _ => return Err(Der::NOSYS),
    })
}

fn ready(state: State) -> keel::EngineReady {
    keel::EngineReady {
        ready: state == State::Ready,
        state: state.as_str().to_owned(),
    }
}

fn decode<T: Message + Default>(body: &[u8]) -> Result<T, Der> {
    T::decode(body).map_err(|_| Der::PROTO)
}

fn daos(result: Result<(), Der>) -> Vec<u8> {
    DaosResp {
        status: Der::rc(result),
    }
    .encode_to_vec()
}

fn group_status(dead: Result<Vec<u32>, Der>) -> Vec<u8> {
    let (status, dead_ranks) = match dead {
        Ok(dead_ranks) => (0, dead_ranks),
        Err(der) => (der.neg(), Vec::new()),
    };
    GetGroupStatusResp { status, dead_ranks }.encode_to_vec()
}

fn set_rank(engine: &Engine, rank: u32) -> Result<(), Der> {
    // A rank is for life: another one would give this engine's data to two ranks.
    match engine.rank() {
        _ if rank == NO_RANK => Err(Der::INVAL),
        NO_RANK => {
            let xstream = engine_xstream::current().ok_or(Der::UNINIT)?;
            engine.group.join(&xstream, rank)?;
            engine.set_rank(rank);
            tracing::info!(rank, "rank set");
            Ok(())
        }
        same if same == rank => Ok(()),
        other => {
            tracing::error!(
                rank,
                other,
                "SET_RANK refused: this engine has another rank already"
            );
            Err(Der::ALREADY)
        }
    }
}

/// Sets the modules up and opens the engine for business. System xstream. Can be called again after a failure.
pub(crate) async fn set_up(engine: &Arc<Engine>) -> Result<(), Der> {
    let running = engine.running.get().ok_or(Der::UNINIT)?;
    let xstream = engine_xstream::current().ok_or(Der::UNINIT)?;
    match engine.state() {
        State::Ready => return Ok(()),
        State::Stopping => return Err(Der::SHUTDOWN),
        State::Starting | State::AwaitingSetup => {}
    }
    if engine.setting_up.swap(true, Ordering::AcqRel) {
        return Err(Der::INPROGRESS);
    }
    let result = running.host.setup_all(&xstream).await;
    engine.setting_up.store(false, Ordering::Release);
    match result {
        Ok(()) => {
            let _ = engine
                .ready_ms
                .set(engine.started.elapsed().as_millis() as u64);
            engine.set_state(State::Ready);
            report::say_ready(engine);
            Ok(())
        }
        Err(error) => {
            tracing::error!(%error, "setup failed; correct the cause, then send SET_UP again or restart the engine");
            engine.set_state(State::AwaitingSetup);
            Err(error.der)
        }
    }
}

async fn metrics(engine: &Engine) -> keel::Metrics {
    if let Some(running) = engine.running.get() {
        running.xstreams.refresh_metrics().await;
    }
    keel::Metrics {
        text: engine_telemetry::render(),
    }
}

async fn tasks(engine: &Engine) -> keel::Tasks {
    match engine.running.get() {
        Some(running) => {
            let listed = running.xstreams.ults(TASKS_WAIT_NS).await;
            report::tasks(listed, &running.view.running())
        }
        None => keel::Tasks::default(),
    }
}

fn set_mask(engine: &Engine, mask: &str) -> keel::LogSetMaskResp {
    let wanted = if mask.is_empty() {
        engine.config.telemetry.log_mask.as_str()
    } else {
        mask
    };
    match engine.log.set_mask(wanted) {
        Ok(()) => keel::LogSetMaskResp {
            status: 0,
            error: String::new(),
            mask: engine.log.mask(),
        },
        Err(error) => keel::LogSetMaskResp {
            status: Der::INVAL.neg(),
            error: error.to_string(),
            mask: engine.log.mask(),
        },
    }
}
