//! Machines as a guide's reader has them, made of namespaces: each with an address, processes, users and a file system of its own, in which
//! the guide's commands run as they stand there. Three programs are stand-ins: `systemctl` does what the units say, `scp` copies into another
//! machine's files, `apt-get` finds everything installed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::process::eventually;
use super::{Network, libraries};

/// Becomes the first process of a machine. Arguments: its root, the directory of the programs, the one of the modules.
const BOOT: &str = r#"
set -e
r=$1
mount --rbind /usr $r/usr
mount -t tmpfs tmpfs $r/usr/local
mkdir -p $r/usr/local/bin $r/usr/local/lib/keel
for file in $2/keel $2/keel-engine; do
    to=$r/usr/local/bin/${file##*/}; : >$to; mount --bind $file $to
done
for file in $3/libmgmt.so $3/libobj.so; do
    to=$r/usr/local/lib/keel/${file##*/}; : >$to; mount --bind $file $to
done
mount -t proc proc $r/proc
mount --rbind /sys $r/sys
mount --rbind /dev $r/dev
mount --bind $r/.. $r/machines
: >$r/booted
# A shell that waits for children takes those whose parents have gone, too.
while :; do sleep 0.1; done
"#;

const SYSTEMCTL: &str = r#"#!/bin/sh
name=$2 log=/var/log/$2.log pid=/run/$2.pid
is_there() { [ -f $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; }
stop() {
    is_there && kill "$(cat $pid)"
    while is_there; do sleep 0.1; done
}
start() {
    case $name in
    etcd)
        set -a; . /etc/default/etcd; set +a
        user=etcd ready='ready to serve client requests' command=/usr/bin/etcd ;;
    keel-engine)
        unit=/etc/systemd/system/keel-engine.service
        export RUNTIME_DIRECTORY=/run/$(sed -n s/^RuntimeDirectory=//p $unit)
        user=$(sed -n s/^User=//p $unit) ready='ready after ' command=$(sed -n s/^ExecStart=//p $unit) ;;
    esac
    : >$log
    setsid setpriv --reuid=$user --regid=$user --clear-groups $command </dev/null >$log 2>&1 &
    echo $! >$pid
    until grep -q "$ready" $log; do
        is_there || { cat $log >&2; exit 1; }
        sleep 0.1
    done
}
case $1 in
restart) stop; start ;;
start) is_there || start ;;
stop) stop ;;
kill) kill -9 "$(cat $pid)" ;;
*) echo "systemctl: not here: $*" >&2; exit 1 ;;
esac
"#;

/// `scp -r FROM root@10.20.0.N:TO`.
const SCP: &str = r#"#!/bin/sh -e
[ "$1" = -r ]
host=${3%%:*}
cp -r "$2" "/machines/${host##*.}${3#*:}"
"#;

const APT: &str = "#!/bin/sh\nexec etcd --version\n";

/// One of them, from 1 on. Dropped, all that runs in it is killed.
pub struct Machine {
    nr: u8,
    root: PathBuf,
    first: Child,
}

/// Several of them, and the network between them.
pub struct Machines {
    all: Vec<Machine>,
    // Last: nothing may be in its namespaces when they go.
    _files: TempDir,
    _network: Network,
}

impl Machines {
    /// Machines 1 to `count`, with the addresses 10.20.0.1 and so on; `Err` says why there can be none here.
    pub fn boot(count: u8) -> Result<Machines, String> {
        let host = |rank| [10, 20, 0, rank + 1];
        let network = Network::with_addresses(count, host)?;
        let files = TempDir::with_prefix("keel-machines-").expect("a scratch directory");
        let boot = |nr| Machine::boot(nr, &network.space(nr - 1), files.path());
        let all = (1..=count).map(boot).collect();
        Ok(Machines {
            all,
            _files: files,
            _network: network,
        })
    }

    pub fn all(&self) -> &[Machine] {
        &self.all
    }
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).expect("a stand-in");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

impl Machine {
    fn boot(nr: u8, space: &str, files: &Path) -> Machine {
        let root = files.join(nr.to_string());
        for dir in [
            "usr",
            "proc",
            "sys",
            "dev",
            "machines",
            "root",
            "stand-ins",
            "tmp",
            "run/keel",
            "var/log",
            "var/lib/etcd",
            "var/lib/keel",
            "etc/keel",
            "etc/default",
            "etc/systemd/system",
        ] {
            fs::create_dir_all(root.join(dir)).expect("a directory");
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).expect("a link");
        }
        let (mut users, mut groups) = (
            "root:x:0:0::/root:/bin/sh\n".to_owned(),
            "root:x:0:\n".to_owned(),
        );
        for (name, id) in [("etcd", 64_501), ("keel", 64_502)] {
            let _ = writeln!(users, "{name}:x:{id}:{id}::/var/lib/{name}:/bin/false");
            let _ = writeln!(groups, "{name}:x:{id}:");
            for dir in ["var/lib", "run"] {
                let dir = root.join(dir).join(name);
                if dir.exists() {
                    std::os::unix::fs::chown(&dir, Some(id), Some(id)).expect("an owner");
                    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("its mode");
                }
            }
        }
        fs::write(root.join("etc/passwd"), users).expect("users");
        fs::write(root.join("etc/group"), groups).expect("groups");
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))
            .expect("its mode");
        executable(&root.join("stand-ins/systemctl"), SYSTEMCTL);
        executable(&root.join("stand-ins/scp"), SCP);
        executable(&root.join("stand-ins/apt-get"), APT);
        let programs = Path::new(env!("CARGO_BIN_EXE_keel-engine"))
            .parent()
            .expect("a directory");
        let first = Command::new("ip")
            .args([
                "netns",
                "exec",
                space,
                "unshare",
                "--mount",
                "--propagation",
                "private",
            ])
            .args(["--pid", "--fork", "--kill-child", "sh", "-c", BOOT, "boot"])
            .args([&root, programs, libraries::folder()])
            .stdin(Stdio::null())
            .spawn()
            .expect("a machine");
        eventually("a machine is up", || {
            root.join("booted").exists().then_some(())
        });
        Machine { nr, root, first }
    }

    /// Its number.
    pub fn nr(&self) -> u8 {
        self.nr
    }

    /// Writes a file of its.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path.trim_start_matches('/')), text).expect("a file");
    }

    pub fn read(&self, path: &str) -> String {
        let path = self.root.join(path.trim_start_matches('/'));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Runs a script as root, which ends at the first command that fails: what it printed, or all that it said.
    pub fn sh(&self, script: &str) -> Result<String, String> {
        let first = self.first.id();
        let children = format!("/proc/{first}/task/{first}/children");
        let inside = fs::read_to_string(&children).expect("its first process");
        let output = Command::new("nsenter")
            .args([
                "--target",
                inside.trim(),
                "--mount",
                "--net",
                "--pid",
                "chroot",
            ])
            .arg(&self.root)
            .args(["/usr/bin/env", "-i", "HOME=/root"])
            .arg("PATH=/stand-ins:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["sh", "-e", "-c", script])
            .stdin(Stdio::null())
            .output()
            .expect("nsenter");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}
