//! `[group.etcd]`: that etcd can be found and believed, and this engine found by the others.

use super::{Fault, Rules};
use crate::error::Kind;
use crate::{Etcd, GroupSource};

pub(super) fn check(rules: &mut Rules<'_>) {
    if !rules.sound(&["group.source", "group.etcd"]) {
        return;
    }
    let group = &rules.config.group;
    match group.source {
        Some(GroupSource::Etcd) => {
            endpoints(rules);
            certificates(rules);
            address(rules);
        }
        _ if group.etcd != Etcd::default() => rules.report(Fault {
            kind: Kind::Conflict,
            key: "group.etcd",
            message: "there is a section about etcd, but the source of the group is another one"
                .into(),
            label: "would be ignored",
            help: "set `group.source = \"etcd\"`, or remove the section".into(),
            also: Some(("group.source", "who says the members")),
        }),
        _ => {}
    }
}

/// The ways to write an endpoint.
const SCHEMES: [&str; 2] = ["http://", "https://"];

/// Whether it is a scheme, a host and a port, as etcd writes it (`--listen-client-urls`).
fn is_endpoint(text: &str) -> bool {
    let host = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
    host.and_then(|host| host.rsplit_once(':'))
        .is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
        })
}

fn endpoints(rules: &mut Rules<'_>) {
    let etcd = &rules.config.group.etcd;
    if etcd.endpoints.is_empty() {
        rules.report(Fault {
            kind: Kind::MissingKey,
            key: "group.etcd.endpoints",
            message: "nobody says where etcd is".into(),
            label: "needs `endpoints`",
            help: "name its members: `endpoints = [\"https://10.0.0.1:2379\"]` in [group.etcd]"
                .into(),
            also: Some(("group.source", "the members are in etcd")),
        });
    }
    for (at, endpoint) in etcd.endpoints.iter().enumerate() {
        if is_endpoint(endpoint) {
            continue;
        }
        rules.report(Fault {
            kind: Kind::BadValue,
            key: &format!("group.etcd.endpoints[{at}]"),
            message: format!("`{endpoint}` is no endpoint of etcd"),
            label: "expected http:// or https://, a host and a port",
            help: "write it as etcd does: `https://10.0.0.1:2379`".into(),
            also: None,
        });
    }
}

fn certificates(rules: &mut Rules<'_>) {
    let etcd = &rules.config.group.etcd;
    let is_secure = etcd.endpoints.iter().any(|one| one.starts_with("https://"));
    if is_secure && etcd.ca.is_none() {
        rules.report(Fault {
            kind: Kind::MissingKey,
            key: "group.etcd.ca",
            message: "etcd is reached by https, and nobody says whose certificates to believe"
                .into(),
            label: "needs `ca`",
            help: "set `ca` in [group.etcd] to the certificate of etcd's authority".into(),
            also: Some(("group.etcd.endpoints", "reached by https")),
        });
    }
    let files = [
        ("group.etcd.ca", etcd.ca.is_some()),
        ("group.etcd.certificate", etcd.certificate.is_some()),
        ("group.etcd.key", etcd.key.is_some()),
    ];
    let used = files.iter().find(|(_, is_set)| *is_set);
    if let Some((key, _)) = used.filter(|_| !is_secure && !etcd.endpoints.is_empty()) {
        rules.report(Fault {
            kind: Kind::Conflict,
            key,
            message: "there are certificates for etcd, and it is reached without TLS".into(),
            label: "would be ignored",
            help: "write the endpoints with https://, or remove the certificates".into(),
            also: Some(("group.etcd.endpoints", "reached by http")),
        });
    }
    let (certificate, key) = (files[1], files[2]);
    for ((missing, is_missing), (there, is_there)) in [(key, certificate), (certificate, key)] {
        if is_missing || !is_there {
            continue;
        }
        rules.report(Fault {
            kind: Kind::MissingKey,
            key: missing,
            message: format!("`{missing}` is missing, and `{there}` is of no use without it"),
            label: "needs both",
            help: "set `certificate` and `key` in [group.etcd], or neither".into(),
            also: Some((there, "set here")),
        });
    }
}

fn address(rules: &mut Rules<'_>) {
    let (address, listen) = (rules.config.group.address, rules.config.rpc.listen);
    let found = address.unwrap_or(listen);
    if !(found.ip().is_unspecified() || (address.is_some() && found.port() == 0))
        || !rules.sound(&["group.address", "rpc.listen"])
    {
        return;
    }
    rules.report(Fault {
        kind: Kind::MissingKey,
        key: "group.address",
        message: format!("the other engines cannot look for this one at {found}"),
        label: "needs an address of this machine",
        help: "set `group.address` to where the others reach it, or `rpc.listen` to one address"
            .into(),
        also: Some(("rpc.listen", "where it listens")),
    });
}
