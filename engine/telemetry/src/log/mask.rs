//! DAOS's log masks (`D_LOG_MASK`: a level, then `facility=level` pairs) as filters on `tracing` targets.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Facilities and the targets (crate names) that log under them. A crate missing here is reached by its own name.
const FACILITIES: &[(&str, &[&str])] = &[
    (
        "bdev",
        &[
            "spdk_bdev",
            "bdev_null",
            "bdev_malloc",
            "bdev_file",
            "bdev_fault",
        ],
    ),
    ("config", &["engine_config"]),
    ("drpc", &["engine_drpc", "drpc_wire"]),
    ("env", &["spdk_env"]),
    ("loader", &["engine_loader"]),
    ("module", &["keel_module", "engine_host"]),
    ("obj", &["obj", "obj_store", "obj_proto"]),
    ("rpc", &["engine_rpc", "rpc_wire"]),
    (
        "server",
        &[
            "keel_engine",
            "engine_host",
            "engine_loader",
            "engine_xstream",
        ],
    ),
    ("telem", &["engine_telemetry"]),
    ("thread", &["spdk_thread", "spdk_reactor"]),
    ("tls", &["engine_tls"]),
    ("xstream", &["engine_xstream"]),
];

/// Level names: DAOS's priorities, then ours. DAOS's NOTE lies between INFO and WARN and is shown with INFO.
const LEVELS: &[(&str, LevelFilter)] = &[
    ("EMIT", LevelFilter::ERROR),
    ("FATAL", LevelFilter::ERROR),
    ("EMRG", LevelFilter::ERROR),
    ("ALRT", LevelFilter::ERROR),
    ("CRIT", LevelFilter::ERROR),
    ("ERR", LevelFilter::ERROR),
    ("ERROR", LevelFilter::ERROR),
    ("WARN", LevelFilter::WARN),
    ("NOTE", LevelFilter::INFO),
    ("INFO", LevelFilter::INFO),
    ("DBUG", LevelFilter::DEBUG),
    ("DEBUG", LevelFilter::DEBUG),
    ("TRACE", LevelFilter::TRACE),
    ("OFF", LevelFilter::OFF),
];

/// Longest mask that is looked at, in bytes.
const MAX_MASK: usize = 1024;
/// Level of everything that a mask without a level of its own does not name.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::INFO;

/// What is wrong with a mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// Nothing in it.
    #[error("the log mask is empty: give a level such as INFO, then facilities such as rpc=DEBUG")]
    Empty,
    /// Absurdly long.
    #[error("the log mask is {0} bytes long; at most 1024 are read")]
    TooLong(usize),
    /// Not a level.
    #[error(
        "log mask: level {0:?} is unknown; levels are OFF, ERR, WARN, NOTE, INFO, DEBUG, TRACE (and DAOS's EMIT, ALRT, CRIT, DBUG)"
    )]
    UnknownLevel(String),
    /// Not a facility.
    #[error("log mask: facility {name:?} is unknown; facilities are {known}; a Rust path such as engine_rpc::listen works too", known = known())]
    UnknownFacility {
        /// As it was written.
        name: String,
    },
    /// A comma with nothing before or after it, or `=` with a side missing.
    #[error("log mask: {0:?} is not of the form LEVEL or FACILITY=LEVEL")]
    Malformed(String),
    /// Two levels for everything.
    #[error("log mask: {0:?} is a second level for everything; write FACILITY=LEVEL")]
    SecondDefault(String),
}

fn known() -> String {
    FACILITIES
        .iter()
        .map(|(name, _)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The filter for a mask.
pub(crate) fn parse(mask: &str) -> Result<Targets, MaskError> {
    if mask.len() > MAX_MASK {
        return Err(MaskError::TooLong(mask.len()));
    }
    if mask.trim().is_empty() {
        return Err(MaskError::Empty);
    }
    let mut default = None;
    let mut targets = Targets::new();
    for part in mask.split(',').map(str::trim) {
        let Some((facility, level_name)) = part.split_once('=') else {
            if part.is_empty() {
                return Err(MaskError::Malformed(mask.to_owned()));
            }
            if default.replace(level(part)?).is_some() {
                return Err(MaskError::SecondDefault(part.to_owned()));
            }
            continue;
        };
        let (facility, level_name) = (facility.trim(), level_name.trim());
        if facility.is_empty() || level_name.is_empty() {
            return Err(MaskError::Malformed(part.to_owned()));
        }
        let level = level(level_name)?;
        for target in targets_of(facility)? {
            targets = targets.with_target(target, level);
        }
    }
    Ok(targets.with_default(default.unwrap_or(DEFAULT_LEVEL)))
}

fn level(name: &str) -> Result<LevelFilter, MaskError> {
    let found = LEVELS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    found
        .map(|(_, level)| *level)
        .ok_or_else(|| MaskError::UnknownLevel(name.to_owned()))
}

fn targets_of(facility: &str) -> Result<Vec<String>, MaskError> {
    if let Some((_, targets)) = FACILITIES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(facility))
    {
        return Ok(targets.iter().map(|target| (*target).to_owned()).collect());
    }
    let is_path = (facility.contains('_') || facility.contains("::"))
        && facility
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    if is_path {
        Ok(vec![facility.to_owned()])
    } else {
        Err(MaskError::UnknownFacility {
            name: facility.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracing::Level;

    use super::*;

    #[test]
    fn masks_and_what_they_let_through() {
        let on = |mask: &str, target: &str, level: Level| {
            parse(mask).unwrap().would_enable(target, &level)
        };
        assert!(on("INFO", "engine_rpc", Level::INFO) && !on("INFO", "engine_rpc", Level::DEBUG));
        assert!(on("ERR,rpc=TRACE", "rpc_wire::frame", Level::TRACE));
        assert!(!on("ERR,rpc=TRACE", "engine_drpc", Level::WARN));
        assert!(
            on("rpc=DEBUG", "engine_tls", Level::INFO),
            "without a level of its own: INFO"
        );
        assert!(!on("rpc=DEBUG", "engine_tls", Level::DEBUG));
        assert!(
            on("note", "x", Level::INFO)
                && !on("Crit", "x", Level::WARN)
                && on("dbug", "x", Level::DEBUG)
        );
        assert!(!on("OFF", "x", Level::ERROR));
        assert!(on(
            " WARN , engine_rpc::listen = TRACE ",
            "engine_rpc::listen::tcp",
            Level::TRACE
        ));
        assert!(
            !on("DEBUG,RPC=WARN", "engine_rpc", Level::INFO),
            "a facility may say less than the rest"
        );
    }

    #[test]
    fn wrong_masks_say_what_is_wrong() {
        assert_eq!(parse("  ").unwrap_err(), MaskError::Empty);
        assert_eq!(
            parse("INFO,,rpc=DEBUG").unwrap_err(),
            MaskError::Malformed("INFO,,rpc=DEBUG".into())
        );
        assert_eq!(
            parse("INFO,rpc=").unwrap_err(),
            MaskError::Malformed("rpc=".into())
        );
        assert_eq!(
            parse("=INFO").unwrap_err(),
            MaskError::Malformed("=INFO".into())
        );
        assert_eq!(
            parse("LOUD").unwrap_err(),
            MaskError::UnknownLevel("LOUD".into())
        );
        assert_eq!(
            parse("INFO,rpc=LOUD").unwrap_err(),
            MaskError::UnknownLevel("LOUD".into())
        );
        assert_eq!(
            parse("INFO,WARN").unwrap_err(),
            MaskError::SecondDefault("WARN".into())
        );
        assert_eq!(
            parse("INFO,rcp=WARN").unwrap_err(),
            MaskError::UnknownFacility { name: "rcp".into() }
        );
        assert_eq!(
            parse(&"x".repeat(2000)).unwrap_err(),
            MaskError::TooLong(2000)
        );
        assert!(parse("nope").unwrap_err().to_string().contains("DEBUG"));
    }

    proptest! {
        #[test]
        fn any_text_gives_a_filter_or_an_error(mask in "\\PC*") {
            let _ = parse(&mask);
        }
    }
}
