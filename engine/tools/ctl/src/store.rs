//! Reaching the engine's pools, containers and objects over its RPC port.

use daos_errno::Der;
use obj_client::{Container, Engine, ObjError, Pool};

use crate::cli::Cli;
use crate::commands::cert::own_identity;
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};

/// Connects to the RPC address that the engine's status names.
pub(crate) fn engine(cli: &Cli) -> Result<Engine, CliError> {
    let status = Endpoint::connect(cli)?.status()?;
    if status.state != "ready" {
        return Err(CliError::new(
            Exit::TempFail,
            format!("the engine is not ready: it is {}", status.state),
        )
        .cure("wait with `keel engine ready --wait`; `keel modules` says what failed"));
    }
    Engine::connect_as(&status.rpc_address, own_identity(cli)?).map_err(failed)
}

pub(crate) fn pool(cli: &Cli, pool: &str) -> Result<Pool, CliError> {
    engine(cli)?.pool(pool).map_err(failed)
}

/// Opens a container for the time of the command.
pub(crate) fn container(
    cli: &Cli,
    (pool, cont): (&str, &str),
    read_only: bool,
) -> Result<Container, CliError> {
    let pool = engine(cli)?.connect_pool(pool, read_only).map_err(failed)?;
    pool.open(cont, read_only).map_err(failed)
}

/// The client's error as the command's, with a cure where there is one.
pub(crate) fn failed(error: ObjError) -> CliError {
    let cure = match error.der() {
        Der::NOSPACE => Some(
            "remove objects, destroy pools, or give the engine larger devices; reads go on working",
        ),
        Der::CSUM => Some(
            "the stored data is damaged: restore this object from a copy; other objects are not affected",
        ),
        Der::BUSY => Some("it is in use: try again, or see --help for a way to force it"),
        _ => None,
    };
    let command = CliError::der(error.der(), error.to_string());
    match cure {
        Some(cure) => command.cure(cure),
        None => command,
    }
}

/// Nanoseconds since 1970 as a date.
pub(crate) fn date(ns: u64) -> String {
    let seconds = (ns / 1_000_000_000) as i64;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to civil date (H. Hinnant's algorithm).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00:00Z");
        assert_eq!(date(951_782_399_000_000_000), "2000-02-28 23:59:59Z");
        assert_eq!(date(951_868_800_000_000_000), "2000-03-01 00:00:00Z");
        assert_eq!(date(1_782_086_400_000_000_000), "2026-06-22 00:00:00Z");
    }
}
