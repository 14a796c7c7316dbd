//! A running VM.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, json};
use tempfile::TempDir;
use test_vm_agent::{MAX_DATA, Reply, Request, Run};

use crate::agent::Agent;
use crate::disks::Disks;
use crate::process::{Output, Process};
use crate::profile::Profile;
use crate::qemu;
use crate::qmp::Qmp;

/// Longest wait for what takes a moment: a file, a short script, the guest's end. An emulated, busy guest is slow.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// A VM whose agent answers. Dropped, it is killed.
pub struct Vm(Parts);

pub(crate) struct Parts {
    pub(crate) qemu: Child,
    pub(crate) qmp: Qmp,
    pub(crate) agent: Arc<Agent>,
    pub(crate) kernel: String,
    pub(crate) disks: Disks,
    pub(crate) profile: Profile,
    pub(crate) host_port: u16,
    pub(crate) run: PathBuf,
    pub(crate) number: u8,
    /// Removed with the VM.
    pub(crate) _sockets: TempDir,
}

impl Vm {
    pub(crate) fn new(parts: Parts) -> Vm {
        Vm(parts)
    }

    /// `uname -r`.
    pub fn kernel(&self) -> &str {
        &self.0.kernel
    }

    /// The run's folder on the host.
    pub fn folder(&self) -> &Path {
        &self.0.run
    }

    /// Where the host reaches the guest's port 10010.
    pub fn rpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.0.host_port)
    }

    /// QEMU's control channel.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.0.qmp
    }

    /// Runs a shell script as root and waits for its end, at most two minutes.
    pub fn run(&self, script: &str) -> Result<Output> {
        self.spawn(script, None, None)?.wait(PATIENCE)
    }

    /// Runs a script that must succeed, and gives its standard output without the last newline.
    pub fn ok(&self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        ensure!(
            output.code == Some(0),
            "`{script}` ended with {:?}:\n{}{}",
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout.trim_end_matches('\n').to_owned())
    }

    /// Runs a script as another user and waits for its end.
    pub fn run_as(&self, user: u32, script: &str) -> Result<Output> {
        self.spawn(script, Some(user), None)?.wait(PATIENCE)
    }

    /// Starts a script whose outputs go to `NAME.log` in the run's folder as well.
    pub fn start(&self, name: &str, script: &str) -> Result<Process> {
        let path = self.0.run.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        self.spawn(
            script,
            None,
            Some(log.with_context(|| path.display().to_string())?),
        )
    }

    /// Starts a script as another user, likewise.
    pub fn start_as(&self, user: u32, name: &str, script: &str) -> Result<Process> {
        let path = self.0.run.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        self.spawn(
            script,
            Some(user),
            Some(log.with_context(|| path.display().to_string())?),
        )
    }

    fn spawn(&self, script: &str, user: Option<u32>, log: Option<File>) -> Result<Process> {
        let run = Run {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![
                ("PATH".into(), "/keel:/bin".into()),
                ("HOME".into(), "/root".into()),
            ],
            user,
        };
        let (number, call) = self.0.agent.call(&Request::Run(run), &[], log)?;
        Ok(Process {
            agent: self.0.agent.clone(),
            number,
            call,
            shown: script.to_owned(),
        })
    }

    /// Writes a file in the guest, making folders on the way.
    pub fn put(&self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let mut offset = 0;
        // An empty file is one empty part.
        let parts = data
            .chunks(MAX_DATA)
            .chain(data.is_empty().then_some(&[][..]));
        for part in parts {
            let put = Request::Put {
                path: path.to_owned(),
                mode,
                offset,
            };
            self.0.agent.call(&put, part, None)?.1.end(path, PATIENCE)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Reads a whole file of the guest.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        loop {
            let get = Request::Get {
                path: path.to_owned(),
                offset: data.len() as u64,
            };
            let (_, call) = self.0.agent.call(&get, &[], None)?;
            match call.end(path, PATIENCE)? {
                Reply::Data => {}
                other => bail!("{path}: the agent answers {other:?}"),
            }
            let part = std::mem::take(&mut call.lock().stdout);
            if part.is_empty() {
                return Ok(data);
            }
            data.extend_from_slice(&part);
        }
    }

    /// PCI address of a controller, by the profile's name for it.
    pub fn bdf(&self, controller: &str) -> Result<String> {
        let nvme = &self.0.profile.nvme[self.position(controller)?];
        let port = self.position(qemu::slot(nvme))?;
        let found = self.ok(&format!(
            "cd /sys/bus/pci/devices/{} && ls -d 0000:*",
            qemu::port_address(port)
        ))?;
        // The port's own services are in files of other names.
        let ending = format!(".{}", qemu::function(nvme));
        let found = found.lines().find(|line| line.ends_with(&ending));
        found
            .map(str::to_owned)
            .with_context(|| format!("no device behind the port of `{controller}`"))
    }

    /// Takes a controller out. The guest's kernel is asked, and this returns when it has let go.
    pub fn pull(&mut self, controller: &str) -> Result<()> {
        self.0
            .qmp
            .execute("device_del", json!({ "id": controller }))?;
        loop {
            let event = self.0.qmp.wait_event("DEVICE_DELETED", PATIENCE)?;
            if event["data"]["device"] == controller {
                return Ok(());
            }
        }
    }

    /// Asks the guest to let go of a controller, and does not wait for that.
    pub fn pull_request(&mut self, controller: &str) -> Result<()> {
        self.0
            .qmp
            .execute("device_del", json!({ "id": controller }))
            .map(drop)
    }

    /// Puts a controller with one namespace back where it was, with its data.
    pub fn plug(&mut self, controller: &str) -> Result<()> {
        let at = self.position(controller)?;
        let properties = qemu::device(&self.0.profile.nvme[at]);
        let properties: Map<_, _> = properties
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        self.0
            .qmp
            .execute("device_add", properties.into())
            .map(drop)
    }

    /// Pulls a controller with one namespace, gives the namespace another size, puts it back, and waits for the guest to find it.
    pub fn resize(&mut self, controller: &str, size_mib: u64) -> Result<()> {
        self.pull(controller)?;
        let resize = json!({ "node-name": qemu::node(controller, 1), "size": size_mib << 20 });
        self.0.qmp.execute("block_resize", resize)?;
        self.plug(controller)?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.bdf(controller) {
            ensure!(Instant::now() < deadline, error);
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn position(&self, controller: &str) -> Result<usize> {
        let nvme = &self.0.profile.nvme;
        let at = nvme.iter().position(|nvme| nvme.name == controller);
        at.with_context(|| format!("profile `{}` has no `{controller}`", self.0.profile.name))
    }

    /// Powers off in good order: what the guest's kernel holds goes to the disks first.
    pub fn power_off(mut self) -> Result<Disks> {
        // Its reply races with the end of the channel.
        let _ = self.spawn("sync; poweroff -f", None, None)?;
        let status = self.exit_status(PATIENCE)?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(self.into_disks())
    }

    /// Pulls the plug: QEMU is killed where it stands.
    pub fn cut_power(mut self) -> Result<Disks> {
        self.0.qemu.kill()?;
        self.0.qemu.wait()?;
        Ok(self.into_disks())
    }

    /// Waits for the guest to end by itself: the VM of a shell.
    pub fn wait(mut self) -> Result<ExitStatus> {
        Ok(self.0.qemu.wait()?)
    }

    /// What the kernel has logged goes to `dmesgN.log` in the run's folder.
    pub fn save_kernel_log(&self) -> Result<()> {
        let log = self.run("dmesg")?;
        let path = self.0.run.join(format!("dmesg{}.log", self.0.number));
        std::fs::write(&path, log.stdout).with_context(|| path.display().to_string())
    }

    fn exit_status(&mut self, longest: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + longest;
        loop {
            if let Some(status) = self.0.qemu.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "the guest does not power off within {longest:?}"
            );
            std::thread::sleep(LOOK);
        }
    }

    fn into_disks(mut self) -> Disks {
        std::mem::take(&mut self.0.disks)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if matches!(self.0.qemu.try_wait(), Ok(None)) {
            let _ = self.0.qemu.kill();
            let _ = self.0.qemu.wait();
        }
    }
}
