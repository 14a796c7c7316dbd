//! Members of the group, and this engine among them.

use super::{Fault, Rules};
use crate::GroupSource;
use crate::error::Kind;

pub(super) fn check(rules: &mut Rules<'_>) {
    silence_is_longer_than_a_heartbeat(rules);
    if rules.sound(&["group.source", "group.member"]) {
        members_are_the_sources(rules);
    }
    let group = &rules.config.group;
    // A list that would be ignored is not looked at.
    let is_used = !matches!(group.source, Some(GroupSource::Control | GroupSource::Etcd));
    if group.member.is_empty() || !is_used || !rules.sound(&["group.member"]) {
        return;
    }
    members_differ(rules);
    this_engine_is_a_member(rules);
}

fn silence_is_longer_than_a_heartbeat(rules: &mut Rules<'_>) {
    let group = &rules.config.group;
    if group.silent_ms >= 2 * group.heartbeat_ms
        || !rules.sound(&["group.silent_ms", "group.heartbeat_ms"])
    {
        return;
    }
    let (silent, beat) = (group.silent_ms, group.heartbeat_ms);
    rules.report(Fault {
        kind: Kind::Conflict,
        key: "group.silent_ms",
        message: format!("an engine that is asked each {beat} ms would count as gone after {silent} ms: one lost answer would do"),
        label: "less than twice `heartbeat_ms`",
        help: format!("set it to {} at least", 2 * beat),
        also: Some(("group.heartbeat_ms", "how often it is asked")),
    });
}

/// A list here and another one elsewhere would be one too many.
fn members_are_the_sources(rules: &mut Rules<'_>) {
    let (config, group) = (rules.config, &rules.config.group);
    match group.source {
        Some(GroupSource::Static) if group.member.is_empty() => rules.report(Fault {
            kind: Kind::MissingKey,
            key: "group.source",
            message: "the members are to stand in this file, and none does".into(),
            label: "needs [[group.member]]",
            help: "add all engines, this one among them, or leave `source` out for an engine that is alone".into(),
            also: None,
        }),
        Some(source @ (GroupSource::Control | GroupSource::Etcd)) if !group.member.is_empty() => rules.report(Fault {
            kind: Kind::Conflict,
            key: "group.member",
            message: match source {
                GroupSource::Etcd => "members stand in this file, but the source of the group is `etcd`".into(),
                _ => "members stand in this file, but the source of the group is `control`".into(),
            },
            label: "would be ignored",
            help: "remove them, or set `group.source = \"static\"`".into(),
            also: Some(("group.source", "who says the members")),
        }),
        Some(GroupSource::Control)
            if config.engine.rank.is_none()
                && config.drpc.control_server.is_none()
                && rules.sound(&["engine.rank", "drpc.control_server"]) =>
        {
            rules.report(Fault {
                kind: Kind::MissingKey,
                key: "engine.rank",
                message: "nobody tells this engine its rank".into(),
                label: "needs `rank`",
                help: "set `engine.rank`, or name the control server that gives it: `drpc.control_server`".into(),
                also: Some(("group.source", "members come over the control channel")),
            });
        }
        _ => {}
    }
}

fn members_differ(rules: &mut Rules<'_>) {
    let members = &rules.config.group.member;
    for (at, member) in members.iter().enumerate() {
        let before = |same: fn(&crate::GroupMember, &crate::GroupMember) -> bool| {
            members[..at].iter().position(|other| same(other, member))
        };
        let rank = before(|one, two| one.rank == two.rank);
        let address = before(|one, two| one.address == two.address);
        let found = [
            (rank, "rank", member.rank.to_string()),
            (address, "address", member.address.to_string()),
        ];
        for (first, what, value) in found {
            let Some(first) = first else { continue };
            rules.report(Fault {
                kind: Kind::Conflict,
                key: &format!("group.member[{at}].{what}"),
                message: format!("two members have the {what} {value}"),
                label: "used again",
                help: format!("each engine has its own {what}"),
                also: Some((&format!("group.member[{first}].{what}"), "first used here")),
            });
        }
    }
}

fn this_engine_is_a_member(rules: &mut Rules<'_>) {
    let config = rules.config;
    let Some(rank) = config.engine.rank else {
        if rules.sound(&["engine.rank"]) {
            rules.report(Fault {
                kind: Kind::Conflict,
                key: "engine.rank",
                message: "a group has members, and this engine does not say which one it is".into(),
                label: "needs `rank`",
                help: "set `engine.rank` to this engine's rank in [[group.member]]".into(),
                also: Some(("group.member", "the members")),
            });
        }
        return;
    };
    if !rules.sound(&["engine.rank"]) {
        return;
    }
    let mine = config
        .group
        .member
        .iter()
        .position(|member| member.rank == rank);
    let Some(at) = mine else {
        return rules.report(Fault {
            kind: Kind::Conflict,
            key: "engine.rank",
            message: format!("no member of the group has rank {rank}"),
            label: "not in the group",
            help: "add this engine to [[group.member]], on every engine, and raise `group.version`"
                .into(),
            also: Some(("group.member", "the members")),
        });
    };
    let (listen, address) = (config.rpc.listen, config.group.member[at].address);
    let same = listen.ip() == address.ip() || listen.ip().is_unspecified();
    if !rules.sound(&["rpc.listen"])
        || listen == address
        || (same && listen.port() == address.port())
    {
        return;
    }
    rules.report(Fault {
        kind: Kind::Conflict,
        key: &format!("group.member[{at}].address"),
        message: format!(
            "the other engines would look for this one at {address}, where it does not listen"
        ),
        label: "not this engine's address",
        help: format!(
            "listen there: `rpc.listen = \"{address}\"`, or correct the member's address"
        ),
        also: Some(("rpc.listen", "where it listens")),
    });
}
