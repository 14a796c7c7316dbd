//! Listen addresses.

use super::{Fault, Rules};
use crate::error::Kind;

pub(super) fn check(rules: &mut Rules<'_>) {
    tls_is_whole(rules);
    rpc_stays_local(rules);
    metrics_stay_local(rules);
    addresses_differ(rules);
}

/// Certificate, key and authority are of use together only.
fn tls_is_whole(rules: &mut Rules<'_>) {
    let tls = &rules.config.tls;
    let keys = [
        ("tls.ca", tls.ca.is_some()),
        ("tls.certificate", tls.certificate.is_some()),
        ("tls.key", tls.key.is_some()),
    ];
    let Some((there, _)) = keys.iter().find(|(_, is_set)| *is_set) else {
        return;
    };
    for (key, _) in keys.iter().filter(|(_, is_set)| !is_set) {
        if !rules.sound(&[key]) {
            continue;
        }
        rules.report(Fault {
            kind: Kind::MissingKey,
            key,
            message: format!("`{key}` is missing, and `{there}` is of no use without it"),
            label: "TLS needs all three",
            help: "`keel cert init` makes `ca`, `keel cert issue` makes `certificate` and `key`; without TLS leave all three out"
                .into(),
            also: Some((there, "set here")),
        });
    }
}

fn rpc_stays_local(rules: &mut Rules<'_>) {
    let (rpc, tls) = (&rules.config.rpc, &rules.config.tls);
    if rpc.listen.ip().is_loopback()
        || rpc.allow_insecure
        || (tls.is_on() && tls.required)
        || !rules.sound(&["rpc.listen", "rpc.allow_insecure", "tls"])
    {
        return;
    }
    let listen = rpc.listen;
    rules.report(Fault {
        kind: Kind::Conflict,
        key: "rpc.listen",
        message: format!("other hosts could reach {listen}, and the data channel need not be encrypted nor authenticated"),
        label: "not a loopback address",
        help: format!(
            "give the engine a certificate in [tls], listen on \"127.0.0.1:{}\", or set `allow_insecure = true` on a network where every host is trusted",
            listen.port()
        ),
        also: None,
    });
}

fn metrics_stay_local(rules: &mut Rules<'_>) {
    let Some(listen) = rules
        .config
        .telemetry
        .metrics_listen
        .filter(|listen| !listen.ip().is_loopback())
    else {
        return;
    };
    rules.report(Fault {
        kind: Kind::BadValue,
        key: "telemetry.metrics_listen",
        message: format!("metrics are served in clear text, and other hosts could reach {listen}"),
        label: "not a loopback address",
        help: format!(
            "listen on \"127.0.0.1:{}\" and let a collector or a proxy on this host pass them on",
            listen.port()
        ),
        also: None,
    });
}

fn addresses_differ(rules: &mut Rules<'_>) {
    let (rpc, metrics) = (
        rules.config.rpc.listen,
        rules.config.telemetry.metrics_listen,
    );
    if metrics != Some(rpc) || rpc.port() == 0 || !rules.sound(&["rpc.listen"]) {
        return;
    }
    rules.report(Fault {
        kind: Kind::Conflict,
        key: "telemetry.metrics_listen",
        message: format!("metrics and data RPC both listen on {rpc}"),
        label: "used again",
        help: "give one of them another port".into(),
        also: Some(("rpc.listen", "first used here")),
    });
}
