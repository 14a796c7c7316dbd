//! The systemd unit that prepares the host again at each boot, before the engine starts.

use crate::root::Root;
use crate::step::Step;

const UNIT: &str = "/etc/systemd/system/keel-node.service";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/keel-node.service";

/// The files, and the steps that are left to make them; none where there is no systemd.
pub(crate) fn steps(root: &Root, program: &str) -> Option<(Vec<String>, Vec<Step>)> {
    if !root.exists("/etc/systemd/system") {
        return None;
    }
    let text = format!(
        "# Written by `keel node prepare`, removed by `keel node release`.\n\
         [Unit]\nDescription=SSDs and huge pages for Keel\nDocumentation=file:///usr/share/doc/keel/operating/install.md\n\
         After=local-fs.target systemd-modules-load.service\nBefore=keel-engine.service\n\n\
         [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={program} node prepare --saved\n\n\
         [Install]\nWantedBy=multi-user.target\n"
    );
    let mut steps = Vec::new();
    if root.read(UNIT).as_deref() != Some(text.trim()) {
        steps.push(Step::File {
            path: UNIT.into(),
            text,
        });
    }
    if root.link_name(WANTED).is_none() {
        steps.push(Step::Link {
            path: WANTED.into(),
            to: UNIT.into(),
        });
    }
    Some((vec![UNIT.into(), WANTED.into()], steps))
}
