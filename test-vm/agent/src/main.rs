//! The agent: started by the guest's init, serves the harness over a virtio serial port until the VM ends.
#![allow(
    clippy::print_stderr,
    reason = "the guest's console is where a broken agent can be seen"
)]

mod calls;
mod files;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use test_vm_agent::{PORT, Reply, Request};

use calls::Calls;

fn main() {
    if let Err(error) = serve() {
        eprintln!("keel-vm-agent: {error}");
        std::process::exit(1);
    }
}

fn serve() -> io::Result<()> {
    let path = port()?;
    let mut input = File::options().read(true).write(true).open(&path)?;
    let calls = Calls::new(input.try_clone()?);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().to_owned();
    calls.reply(0, &Reply::Hello { kernel }, &[]);
    while let Some((call, request, data)) = test_vm_agent::read::<Request>(&mut input)? {
        match request {
            Request::Run(run) => calls.run(call, run),
            Request::Kill { signal } => calls.kill(call, signal),
            Request::Put { path, mode, offset } => {
                calls.answer(call, files::put(&path, mode, offset, &data));
            }
            Request::Get { path, offset } => match files::get(&path, offset) {
                Ok(data) => calls.reply(call, &Reply::Data, &data),
                Err(why) => calls.answer(call, Err(why)),
            },
        }
    }
    Ok(())
}

/// The device of our port: the kernel numbers them, sysfs has the names.
fn port() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::other(format!(
        "there is no virtio serial port `{PORT}`"
    )))
}
