//! `keel engine status|ready|shutdown|topology`.

use std::time::{Duration, Instant};

use drpc_wire::{keel, methods};

use crate::cli::{Cli, Engine};
use crate::commands::topology;
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::{bytes, show, table};

const POLL: Duration = Duration::from_millis(20);

pub(crate) fn run(cli: &Cli, command: &Engine) -> Result<(), CliError> {
    match command {
        Engine::Status => show(cli.output, &Endpoint::connect(cli)?.status()?, status_text),
        Engine::Ready { wait } => ready(cli, *wait),
        Engine::Shutdown => shutdown(cli),
        Engine::Topology { config, sets } => topology::run(cli, config.as_deref(), sets),
    }
}

fn status_text(status: &keel::EngineStatus) -> String {
    let mut out = format!(
        "engine {} (rank {}, pid {}) is {}\n  version {}  provider {}  up {} s, ready after {} ms\n  dRPC {}\n  RPC {}\n",
        status.system,
        status.rank,
        status.pid,
        status.state,
        status.version,
        status.provider,
        status.uptime_ms / 1000,
        status.start_to_ready_ms,
        status.drpc_socket,
        status.rpc_address,
    );
    if !status.metrics_address.is_empty() {
        out.push_str(&format!(
            "  metrics http://{}/metrics\n",
            status.metrics_address
        ));
    }
    if !status.tls.is_empty() {
        out.push_str(&format!("  TLS {}\n", status.tls));
    }
    let targets: Vec<Vec<String>> = status
        .targets
        .iter()
        .map(|t| {
            vec![
                t.id.to_string(),
                t.xstream.to_string(),
                t.cpu.to_string(),
                t.device.clone(),
                bytes(t.bytes_total),
                t.state.clone(),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(
        &["TARGET", "XSTREAM", "CPU", "DEVICE", "SIZE", "STATE"],
        &targets,
    ));
    let xstreams: Vec<Vec<String>> = status.xstreams.iter().map(xstream_row).collect();
    out.push('\n');
    out.push_str(&table(
        &[
            "XSTREAM", "NAME", "ROLE", "CPU", "TASKS", "POLLERS", "MESSAGES", "BUSY",
        ],
        &xstreams,
    ));
    out
}

fn xstream_row(xs: &keel::Xstream) -> Vec<String> {
    let total = xs.busy_ns + xs.idle_ns;
    let busy = if total == 0 {
        0.0
    } else {
        100.0 * xs.busy_ns as f64 / total as f64
    };
    vec![
        xs.id.to_string(),
        xs.name.clone(),
        xs.role.clone(),
        xs.cpu.to_string(),
        xs.tasks.to_string(),
        xs.pollers.to_string(),
        xs.messages.to_string(),
        format!("{busy:.1} %"),
    ]
}

fn ready(cli: &Cli, wait: bool) -> Result<(), CliError> {
    let deadline = Instant::now() + Duration::from_secs(cli.timeout);
    loop {
        let answer = Endpoint::connect(cli)
            .and_then(|mut engine| engine.keel::<keel::EngineReady>(methods::ENGINE_READY, &()));
        match answer {
            Ok(answer) if answer.ready => return show(cli.output, &answer, |_| "ready".to_owned()),
            answer if !wait || Instant::now() >= deadline => {
                let answer = answer?;
                return Err(CliError::new(
                    Exit::TempFail,
                    format!("the engine is not ready: it is {}", answer.state),
                ));
            }
            _ => std::thread::sleep(POLL),
        }
    }
}

/// Whether the process is still there; one that has ended and waits for its parent to look is not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state is the first letter after the name, which stands in brackets.
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !stat.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn shutdown(cli: &Cli) -> Result<(), CliError> {
    let mut engine = Endpoint::connect(cli)?;
    let pid = engine.status()?.pid;
    engine.keel_ack(methods::ENGINE_SHUTDOWN, &keel::ShutdownReq::default())?;
    let deadline = Instant::now() + engine.timeout;
    while is_running(pid) {
        if Instant::now() >= deadline {
            return Err(CliError::new(
                Exit::TempFail,
                format!("the engine (pid {pid}) is still stopping"),
            )
            .cure("its log says each second what it waits for"));
        }
        std::thread::sleep(POLL);
    }
    show(
        cli.output,
        &serde_json::json!({ "pid": pid, "state": "stopped" }),
        |_| format!("engine (pid {pid}) has stopped"),
    )
}
