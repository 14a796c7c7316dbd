//! `keel group status`.

use drpc_wire::{keel, methods};

use crate::cli::{Cli, Group};
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::{show, table};

pub(crate) fn run(cli: &Cli, command: &Group) -> Result<(), CliError> {
    match command {
        Group::Status => {
            let status: keel::GroupStatus =
                Endpoint::connect(cli)?.keel(methods::GROUP_STATUS, &())?;
            show(cli.output, &status, status_text)
        }
    }
}

fn status_text(status: &keel::GroupStatus) -> String {
    if status.members.is_empty() {
        return format!(
            "engine {} is alone: its configuration has no [[group.member]]",
            status.system
        );
    }
    let rows: Vec<Vec<String>> = status.members.iter().map(row).collect();
    format!(
        "group {}, version {}, as rank {} sees it\n\n{}",
        status.system,
        status.version,
        status.rank,
        table(
            &[
                "RANK",
                "ADDRESS",
                "STATE",
                "LIFE",
                "HEARD",
                "TOOK",
                "TARGETS",
                "VERSION",
                "LAST FAILURE"
            ],
            &rows
        )
    )
}

fn row(member: &keel::GroupMember) -> Vec<String> {
    let heard = member.state != "self" && member.incarnation != 0;
    let if_heard = |text: String| if heard { text } else { "-".to_owned() };
    let or_dash = |text: String, is: bool| if is { text } else { "-".to_owned() };
    let facts = member.facts.clone().unwrap_or_default();
    vec![
        member.rank.to_string(),
        member.address.clone(),
        member.state.clone(),
        or_dash(member.incarnation.to_string(), member.incarnation != 0),
        if_heard(format!("{} ms ago", member.heard_ms)),
        if_heard(format!("{} us", member.took_us)),
        or_dash(facts.targets.to_string(), !facts.uuid.is_empty()),
        or_dash(facts.version, !facts.uuid.is_empty()),
        or_dash(member.failure.clone(), !member.failure.is_empty()),
    ]
}
