//! `keel group status|set|check`.

use daos_errno::Der;
use drpc_wire::mgmt::group_update_req::Engine;
use drpc_wire::mgmt::{GroupUpdateReq, GroupUpdateResp};
use drpc_wire::{Message, Status, keel, methods, modules};

use crate::cli::{Cli, Group};
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::{show, table};

pub(crate) fn run(cli: &Cli, command: &Group) -> Result<(), CliError> {
    match command {
        Group::Status => {
            let status: keel::GroupStatus =
                Endpoint::connect(cli)?.keel(methods::GROUP_STATUS, &())?;
            show(cli.output, &status, status_text)
        }
        Group::Set { version, members } => {
            let row = |(rank, address): &(u32, std::net::SocketAddr)| Engine {
                rank: *rank,
                uri: format!("tcp://{address}"),
                incarnation: 0,
            };
            set(
                cli,
                &GroupUpdateReq {
                    map_version: *version,
                    engines: members.iter().map(row).collect(),
                },
            )
        }
        Group::Check => check(cli),
    }
}

fn set(cli: &Cli, request: &GroupUpdateReq) -> Result<(), CliError> {
    let body = request.encode_to_vec();
    let response = Endpoint::connect(cli)?.call(modules::MGMT, methods::GROUP_UPDATE, &body)?;
    if response.status() != Status::Success {
        let status = response.status().as_str_name();
        return Err(CliError::new(
            Exit::Failed,
            format!("the engine answered {status}"),
        ));
    }
    let answer = GroupUpdateResp::decode(response.body.as_slice()).map_err(|error| {
        CliError::new(
            Exit::Software,
            format!("the engine's answer cannot be decoded: {error}"),
        )
    })?;
    Der::check(answer.status).map_err(|der| {
        let error = CliError::der(der, format!("the group is not changed: {der}"));
        match der {
            Der::GRPVER => error.cure(
                "give a greater version than the engine knows: `keel group status` shows it",
            ),
            Der::NOTSUPPORTED => error.cure(
                "the engine takes its members from elsewhere: set `group.source = \"control\"` and restart it",
            ),
            _ => error.cure("the engine's log says what is wrong with the list"),
        }
    })
}

fn check(cli: &Cli) -> Result<(), CliError> {
    // The engine answers before we stop listening.
    let limit_ms = u32::try_from(cli.timeout * 900).unwrap_or(u32::MAX);
    let request = keel::GroupCheckReq { limit_ms };
    let answer: keel::GroupCheck = Endpoint::connect(cli)?.keel(methods::GROUP_CHECK, &request)?;
    show(cli.output, &answer, check_text)?;
    let silent = answer
        .members
        .iter()
        .filter(|member| !member.failure.is_empty());
    match silent.count() {
        0 => Ok(()),
        count => Err(CliError::new(
            Exit::Unavailable,
            format!("{count} of {} members did not answer", answer.members.len()),
        )
        .cure("`keel group status` says since when; the log of such an engine says why")),
    }
}

fn check_text(check: &keel::GroupCheck) -> String {
    let row = |member: &keel::MemberCheck| {
        let answer = member.answer.clone();
        let said =
            |text: fn(keel::MemberAnswer) -> String| answer.clone().map_or("-".to_owned(), text);
        vec![
            member.rank.to_string(),
            said(|answer| answer.state),
            said(|answer| answer.incarnation.to_string()),
            said(|answer| format!("{} s", answer.uptime_ms / 1000)),
            said(|answer| answer.version),
            member.failure.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = check.members.iter().map(row).collect();
    format!(
        "version {} of the group, asked in {} us\n\n{}",
        check.version,
        check.took_us,
        table(
            &["RANK", "STATE", "LIFE", "UP", "VERSION", "FAILURE"],
            &rows
        )
    )
}

fn status_text(status: &keel::GroupStatus) -> String {
    if status.source.is_empty() {
        return format!(
            "engine {} is alone: its configuration has no [group]",
            status.system
        );
    }
    let led = match status.leader {
        Some(leader) => format!("led by rank {leader} in term {}", term(status)),
        None => "led by nobody that this rank knows".to_owned(),
    };
    let mut text = format!(
        "group {} (source: {}), version {}, {led}, as rank {} sees it\n",
        status.system, status.source, status.version, status.rank,
    );
    if !status.note.is_empty() {
        text += &format!("note: {}\n", status.note);
    }
    if status.members.is_empty() {
        return text + "it has no members yet";
    }
    let rows: Vec<Vec<String>> = status.members.iter().map(|m| row(status, m)).collect();
    let columns = [
        "RANK",
        "ADDRESS",
        "STATE",
        "LIFE",
        "HEARD",
        "TOOK",
        "TARGETS",
        "VERSION",
        "LAST FAILURE",
    ];
    format!("{text}\n{}", table(&columns, &rows))
}

/// Of a list the version and the leader's life, which make up the term; of others a number.
fn term(status: &keel::GroupStatus) -> String {
    match status.source.as_str() {
        "static" | "control" => format!("{}.{}", status.term >> 32, status.term & 0xffff_ffff),
        _ => status.term.to_string(),
    }
}

fn row(status: &keel::GroupStatus, member: &keel::GroupMember) -> Vec<String> {
    let leads = status.leader == Some(member.rank);
    let heard = member.state != "self" && member.incarnation != 0;
    let if_heard = |text: String| if heard { text } else { "-".to_owned() };
    let or_dash = |text: String, is: bool| if is { text } else { "-".to_owned() };
    let facts = member.facts.clone().unwrap_or_default();
    vec![
        member.rank.to_string(),
        member.address.clone(),
        format!("{}{}", member.state, if leads { ", leads" } else { "" }),
        or_dash(member.incarnation.to_string(), member.incarnation != 0),
        if_heard(format!("{} ms ago", member.heard_ms)),
        if_heard(format!("{} us", member.took_us)),
        or_dash(facts.targets.to_string(), !facts.uuid.is_empty()),
        or_dash(facts.version, !facts.uuid.is_empty()),
        or_dash(member.failure.clone(), !member.failure.is_empty()),
    ]
}
