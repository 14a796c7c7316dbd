//! `keel drpc call`.

use std::path::Path;

use drpc_wire::Status;
use serde::Serialize;

use crate::cli::{Cli, Drpc};
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::show;

#[derive(Serialize)]
struct Answer {
    sequence: i64,
    status: &'static str,
    body_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

pub(crate) fn run(cli: &Cli, command: &Drpc) -> Result<(), CliError> {
    let Drpc::Call {
        module,
        method,
        body,
        out,
    } = command;
    let body = body_bytes(body)?;
    let response = Endpoint::connect(cli)?.call(*module, *method, &body)?;
    let status = response.status();
    if let Some(path) = out {
        std::fs::write(path, &response.body).map_err(|e| CliError::file(path, &e))?;
    }
    let body_hex = out
        .is_none()
        .then(|| response.body.iter().map(|b| format!("{b:02x}")).collect());
    let answer = Answer {
        sequence: response.sequence,
        status: status.as_str_name(),
        body_bytes: response.body.len(),
        body_hex,
    };
    show(cli.output, &answer, |a| {
        format!(
            "{} ({} bytes)\n{}",
            a.status,
            a.body_bytes,
            a.body_hex.as_deref().unwrap_or("")
        )
    })?;
    match status {
        Status::Success | Status::Submitted => Ok(()),
        status => Err(CliError::new(
            Exit::Failed,
            format!(
                "dRPC {module}.{method} was answered {}",
                status.as_str_name()
            ),
        )),
    }
}

fn body_bytes(text: &str) -> Result<Vec<u8>, CliError> {
    if let Some(path) = text.strip_prefix('@') {
        return std::fs::read(path).map_err(|e| CliError::file(Path::new(path), &e));
    }
    let wrong = || {
        CliError::new(
            Exit::Failed,
            format!("--body `{text}` is not a row of hexadecimal bytes"),
        )
        .cure("give two digits per byte, e.g. 0a1b2c, or @FILE")
    };
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) || !text.len().is_multiple_of(2) {
        return Err(wrong());
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| wrong()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_bodies() {
        assert!(body_bytes("").unwrap().is_empty());
        assert_eq!(body_bytes("00fF7a").unwrap(), [0, 255, 0x7a]);
        for wrong in ["0", "0g", "ää", "+1"] {
            assert!(body_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
