//! [`Account`]: the user that the engine runs as.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::root::Root;

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its own group.
    pub gid: u32,
    groups: Vec<u32>,
}

/// A name that `/etc/passwd` does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no user `{0}` in /etc/passwd; make it: useradd --system --home-dir /var/lib/keel {0}"
)]
pub struct UnknownAccount(String);

impl Account {
    /// The user of a name. Only `/etc/passwd` and `/etc/group` are asked: service users are local.
    ///
    /// # Errors
    /// [`UnknownAccount`].
    pub fn named(root: &Root, name: &str) -> Result<Account, UnknownAccount> {
        // name:password:uid:gid:...
        let users = root.read("/etc/passwd").unwrap_or_default();
        let find = |line: &str| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some((uid, fields.next()?.parse().ok()?))
        };
        let (uid, gid) = users
            .lines()
            .find_map(find)
            .ok_or_else(|| UnknownAccount(name.to_owned()))?;
        // name:password:gid:member,member
        let groups = root.read("/etc/group").unwrap_or_default();
        let member = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|member| member == name);
            is_member.then_some(fields.get(2)?.parse().ok()?)
        };
        let groups = groups.lines().filter_map(member).collect();
        Ok(Account {
            name: name.to_owned(),
            uid,
            gid,
            groups,
        })
    }

    /// The user of this process.
    #[must_use]
    pub fn own() -> Account {
        let own = |id: u32| id == rustix::process::getegid().as_raw();
        let groups = rustix::process::getgroups().unwrap_or_default();
        Account {
            name: "this user".into(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: groups
                .into_iter()
                .map(|id| id.as_raw())
                .filter(|id| !own(*id))
                .collect(),
        }
    }

    /// Whether it may read and write a file, by the file's mode.
    pub(crate) fn may_use(&self, file: &Metadata) -> bool {
        let in_group = self.gid == file.gid() || self.groups.contains(&file.gid());
        let shift = match (self.uid == file.uid(), in_group) {
            (true, _) => 6,
            (false, true) => 3,
            (false, false) => 0,
        };
        self.uid == 0 || file.mode() >> shift & 0o6 == 0o6
    }
}
