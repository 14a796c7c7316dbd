//! Calls at work: each running program has a thread, and one for each of its outputs. Replies go out one at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};
use test_vm_agent::{Reply, Run};

/// Bytes read from a program at a time.
const CHUNK: usize = 32 << 10;

#[derive(Clone)]
pub(crate) struct Calls {
    out: Arc<Mutex<File>>,
    /// Process groups of the running calls.
    running: Arc<Mutex<HashMap<u32, Pid>>>,
}

impl Calls {
    pub(crate) fn new(out: File) -> Calls {
        Calls {
            out: Arc::new(Mutex::new(out)),
            running: Arc::default(),
        }
    }

    /// Sends a reply. When the host is gone so is the VM: nobody is left to tell.
    pub(crate) fn reply(&self, call: u32, reply: &Reply, data: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = test_vm_agent::write(&mut *out, call, reply, data) {
            eprintln!("keel-vm-agent: {error}");
        }
    }

    pub(crate) fn answer(&self, call: u32, result: Result<(), String>) {
        match result {
            Ok(()) => self.reply(call, &Reply::Done, &[]),
            Err(why) => self.reply(call, &Reply::Failed { why }, &[]),
        }
    }

    pub(crate) fn kill(&self, call: u32, signal: i32) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(group), Some(signal)) = (running.get(&call), Signal::from_named_raw(signal)) {
            // It may have ended just now; then its `Exited` is on the way.
            let _ = kill_process_group(*group, signal);
        }
    }

    pub(crate) fn run(&self, call: u32, run: Run) {
        let child = match spawn(&run) {
            Ok(child) => child,
            Err(why) => return self.answer(call, Err(why)),
        };
        let pid = child.id();
        if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(call, group);
        }
        self.reply(call, &Reply::Started { pid }, &[]);
        let calls = self.clone();
        thread::spawn(move || calls.attend(call, child));
    }

    /// Passes on the program's outputs until they and the program have ended.
    fn attend(&self, call: u32, mut child: Child) {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            scope.spawn(|| self.pass_on(call, stdout, &Reply::Stdout));
            scope.spawn(|| self.pass_on(call, stderr, &Reply::Stderr));
        });
        let status = child.wait();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&call);
        drop(running);
        let reply = match status {
            Ok(status) => Reply::Exited {
                code: status.code(),
                signal: status.signal(),
            },
            Err(error) => Reply::Failed {
                why: error.to_string(),
            },
        };
        self.reply(call, &reply, &[]);
    }

    fn pass_on(&self, call: u32, from: Option<impl Read>, reply: &Reply) {
        let Some(mut from) = from else { return };
        let mut chunk = vec![0; CHUNK];
        while let Ok(len @ 1..) = from.read(&mut chunk) {
            self.reply(call, reply, &chunk[..len]);
        }
    }
}

fn spawn(run: &Run) -> Result<Child, String> {
    let [program, args @ ..] = run.argv.as_slice() else {
        return Err("there is no program to run".into());
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(run.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = run.user {
        command.uid(user).gid(user);
    }
    command
        .spawn()
        .map_err(|error| format!("{program}: {error}"))
}
