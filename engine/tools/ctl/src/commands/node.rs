//! `keel node doctor|prepare|status|release`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use engine_config::{Config, Document};
use engine_node::{
    Account, Address, DeviceStatus, Need, NodePages, NodeStatus, Preparation, Questions, Record,
    Refusal, Release, Root, Severity, Step, ThisMachine, Wish, all_nvme, examine, status, worst,
};
use engine_placement::Plan;
use spdk_env::cpu::{Host, Topology};

use crate::cli::{Cli, Node, Prepare, Which};
use crate::commands::config::wrong;
use crate::error::{CliError, Exit};
use crate::output::{bytes, show, table, write_out};

pub(crate) fn run(cli: &Cli, command: &Node) -> Result<ExitCode, CliError> {
    let root = Root::this();
    match command {
        Node::Doctor { which, user } => return doctor(cli, &root, which, user.as_deref()),
        Node::Prepare(prepare) => self::prepare(cli, &root, prepare),
        Node::Status { config, sets } => {
            let config = config
                .as_deref()
                .map(|path| load(cli, path, sets))
                .transpose()?;
            let status = status(&root, config.as_ref()).map_err(|error| refused(&error.into()))?;
            show(cli.output, &status, status_text)
        }
        Node::Release { devices, dry_run } => release(&root, devices, *dry_run),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Without looking at this machine: what is missing on it is the answer.
fn load(cli: &Cli, path: &Path, sets: &[String]) -> Result<Config, CliError> {
    let mut document = Document::load(path).map_err(|errors| wrong(cli, &errors))?;
    for set in sets {
        document.apply_set(set);
    }
    document.finish(None).map_err(|errors| wrong(cli, &errors))
}

fn refused(refusal: &Refusal) -> CliError {
    let exit = match refusal {
        Refusal::Findings(_) => Exit::Config,
        Refusal::Account(_) => Exit::NoInput,
        Refusal::Step(_) | Refusal::Record(_) => Exit::Failed,
    };
    let error = CliError::new(exit, refusal.to_string());
    match refusal {
        Refusal::Step(failed) => error.cure(failed.cure.clone()),
        _ => error,
    }
}

fn doctor(cli: &Cli, root: &Root, which: &Which, user: Option<&str>) -> Result<ExitCode, CliError> {
    let (need, polled) = match &which.config {
        Some(path) => {
            let config = load(cli, path, &which.sets)?;
            (Need::of_config(root, &config), polled(&config))
        }
        None if which.devices.is_empty() => {
            let lent = all_nvme(root)
                .into_iter()
                .filter(engine_node::PciDevice::is_lent);
            let lent: Vec<Address> = lent.map(|device| device.address).collect();
            (Need::of_devices(root, &lent), Vec::new())
        }
        None => (Need::of_devices(root, &which.devices), Vec::new()),
    };
    let account = match user {
        Some(name) => Account::named(root, name).map_err(|error| refused(&error.into()))?,
        None => Account::own(),
    };
    let looked_at = need.devices.len();
    let found = examine(
        root,
        &Questions {
            need,
            account,
            at_start: false,
            polled,
        },
    );
    let answer = serde_json::json!({ "findings": found });
    show(cli.output, &answer, |_| {
        let mut text: String = found.iter().fold(String::new(), |text, finding| {
            text + &finding.to_string() + "\n"
        });
        let count = |severity| {
            found
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        let (faults, warnings) = (count(Severity::Fault), count(Severity::Warning));
        let _ = write!(
            text,
            "{looked_at} SSDs: {faults} faults, {warnings} warnings"
        );
        text
    })?;
    Ok(match worst(&found) {
        Some(Severity::Fault) => ExitCode::from(2),
        Some(Severity::Warning) => ExitCode::from(1),
        Some(Severity::Note) | None => ExitCode::SUCCESS,
    })
}

/// The cores that would always poll; none where no layout is possible, which `keel engine topology` explains.
fn polled(config: &Config) -> Vec<usize> {
    if config.engine.idle_latency_us > 0 {
        return Vec::new();
    }
    let plan = Topology::discover()
        .ok()
        .and_then(|topology| Plan::make(config, &Host::this(), topology).ok());
    plan.map(|plan| plan.layout.cpus()).unwrap_or_default()
}

fn prepare(cli: &Cli, root: &Root, prepare: &Prepare) -> Result<(), CliError> {
    let Prepare {
        which,
        user,
        uio,
        once,
        saved,
        dry_run,
    } = prepare;
    let wish = if *saved {
        Record::load(root)
            .map_err(|error| refused(&error.into()))?
            .wish
    } else {
        let need = match &which.config {
            Some(path) => Need::of_config(root, &load(cli, path, &which.sets)?),
            None => Need::of_devices(root, &which.devices),
        };
        Wish {
            user: user.clone(),
            uio: *uio,
            at_boot: !once,
            ..Wish::of(need)
        }
    };
    if wish.devices.is_empty() {
        let (what, cure) = if *saved {
            (
                "nothing is saved that could be prepared again",
                "keel node prepare --config FILE",
            )
        } else {
            (
                "no SSD is named",
                "give PCI addresses (lspci -D | grep -i nvm), or --config FILE with devices of kind `nvme`",
            )
        };
        return Err(CliError::new(Exit::Config, what).cure(cure));
    }
    let program = std::env::current_exe()
        .map_err(|error| CliError::file(Path::new("/proc/self/exe"), &error))?;
    let plan = Preparation::plan(root, &wish, &program.display().to_string())
        .map_err(|refusal| refused(&refusal))?;
    carry_out(
        &plan.steps,
        &plan.notes,
        *dry_run,
        "this host is prepared",
        &mut |tell| plan.run(root, &mut ThisMachine(root.clone()), tell),
    )
}

fn release(root: &Root, devices: &[Address], dry_run: bool) -> Result<(), CliError> {
    let plan = Release::plan(root, devices).map_err(|refusal| refused(&refusal))?;
    carry_out(&plan.steps, &plan.notes, dry_run, "released", &mut |tell| {
        plan.run(root, &mut ThisMachine(root.clone()), tell)
    })
}

type Run<'a> = dyn FnMut(&mut dyn FnMut(&Step)) -> Result<(), Refusal> + 'a;

fn carry_out(
    steps: &[Step],
    notes: &[String],
    dry_run: bool,
    done: &str,
    run: &mut Run<'_>,
) -> Result<(), CliError> {
    let say = |line: &str| write_out(format!("{line}\n").as_bytes());
    for note in notes {
        say(&format!("# {note}"))?;
    }
    if dry_run {
        return steps.iter().try_for_each(|step| say(&step.to_string()));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(CliError::new(Exit::NoPerm, "only root may change the host")
            .cure("sudo; --dry-run shows what would be done"));
    }
    let mut told = Ok(());
    run(&mut |step| {
        let line = say(&step.to_string());
        if told.is_ok() {
            told = line;
        }
    })
    .map_err(|refusal| refused(&refusal))?;
    told?;
    say(&format!("# {done}"))
}

fn status_text(status: &NodeStatus) -> String {
    let dash = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    let device = |device: &DeviceStatus| {
        let targets: Vec<String> = device.targets.iter().map(u32::to_string).collect();
        vec![
            device.address.clone(),
            dash(device.driver.clone().unwrap_or_default()),
            number(device.group),
            number(device.numa_node),
            if device.prepared { "yes" } else { "no" }.to_owned(),
            dash(device.devices.join(",")),
            dash(targets.join(",")),
            dash(device.uses.join("; ")),
        ]
    };
    let rows: Vec<_> = status.devices.iter().map(device).collect();
    let mut text = table(
        &[
            "ADDRESS", "DRIVER", "GROUP", "NODE", "PREPARED", "DEVICES", "TARGETS", "IN USE",
        ],
        &rows,
    );
    let pages = |pages: &NodePages| {
        let needed = status.needed.iter().find(|needed| needed.is_of(pages));
        vec![
            pages.node.to_string(),
            bytes(pages.size_kib << 10),
            pages.total.to_string(),
            pages.free.to_string(),
            needed.map_or("-".to_owned(), |needed| bytes(needed.bytes)),
        ]
    };
    let rows: Vec<_> = status.pages.iter().map(pages).collect();
    let _ = write!(
        text,
        "\n{}",
        table(&["NODE", "PAGE", "TOTAL", "FREE", "NEEDED"], &rows)
    );
    let boot = if status.at_boot {
        "at each boot (keel-node.service)"
    } else {
        "not at boot"
    };
    let _ = write!(text, "\nprepared {boot}");
    text
}
