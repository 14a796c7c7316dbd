//! What strings of each format must look like, and "did you mean".

use std::net::SocketAddr;

use crate::CpuList;
use crate::shape::Format;

/// Longest path of a Unix socket: `sockaddr_un` has 108 bytes, one of them the closing zero.
pub(crate) const MAX_SOCKET_PATH: usize = 107;

/// Longest name of a group of engines (DAOS_SYS_NAME_MAX).
const MAX_SYSTEM_NAME: usize = 15;

/// Longest name of a module or a device.
const MAX_NAME: usize = 32;

/// Why a text does not fit its format: the end of a sentence that begins with the key, and the cure.
pub(crate) type Complaint = (String, String);

pub(crate) fn check(format: Format, text: &str) -> Result<(), Complaint> {
    match format {
        Format::Any => Ok(()),
        Format::Path => path(text),
        Format::SocketPath => path(text).and_then(|()| socket_path(text)),
        Format::SocketAddress => socket_address(text),
        Format::SystemName => name(text, MAX_SYSTEM_NAME, "-_."),
        Format::DeviceName => name(text, MAX_NAME, "-_."),
        Format::ModuleName => name(text, MAX_NAME, "_"),
        Format::LogMask => log_mask(text),
        Format::CpuList => CpuList::parse(text).map(drop),
        Format::PciAddress => pci_address(text),
    }
}

/// What a text of this format is called, with its article.
pub(crate) fn noun(format: Format) -> &'static str {
    match format {
        Format::Any => "a string",
        Format::Path => "a path",
        Format::SocketPath => "the path of a socket",
        Format::SocketAddress => "an address and port",
        Format::SystemName | Format::DeviceName | Format::ModuleName => "a name",
        Format::LogMask => "a log mask",
        Format::CpuList => "a list of CPUs",
        Format::PciAddress => "a PCI address",
    }
}

fn path(text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err((
            "is an empty path".into(),
            "leave the key out to use its default".into(),
        ));
    }
    if text.contains('\0') {
        return Err(("contains a zero byte".into(), "no path can".into()));
    }
    if text == "~" || text.starts_with("~/") {
        return Err((
            "begins with `~`, which only a shell understands".into(),
            "write the home directory out".into(),
        ));
    }
    Ok(())
}

fn socket_path(text: &str) -> Result<(), Complaint> {
    if text.len() > MAX_SOCKET_PATH {
        return Err((
            format!(
                "is {} bytes long; the path of a socket has at most {MAX_SOCKET_PATH}",
                text.len()
            ),
            "the limit is the kernel's: choose a shorter directory, such as /run/keel".into(),
        ));
    }
    Ok(())
}

fn socket_address(text: &str) -> Result<(), Complaint> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let help = match text.rsplit_once(':') {
        _ if text.parse::<u16>().is_ok() => format!("did you mean \"127.0.0.1:{text}\"?"),
        None => format!("add a port: \"{text}:10010\""),
        Some((host, port)) if port.parse::<u16>().is_err() => {
            format!("`{port}` is not a port: a number from 0 to 65535, after the address `{host}`")
        }
        Some((_, port)) if text.matches(':').count() > 1 => {
            format!("an IPv6 address stands in brackets: \"[::1]:{port}\"")
        }
        Some(("localhost", port)) => format!("names are not looked up: write \"127.0.0.1:{port}\""),
        Some(_) => {
            "names are not looked up: write the address in numbers, such as \"127.0.0.1:10010\""
                .into()
        }
    };
    Err(("is not an address and port".into(), help))
}

/// `0000:05:00.0`: domain, bus, device, function, as sysfs writes them.
fn pci_address(text: &str) -> Result<(), Complaint> {
    let lower = text.to_ascii_lowercase();
    let full = match lower.matches(':').count() {
        1 => format!("0000:{lower}"),
        _ => lower,
    };
    if !is_pci_address(&full) {
        let help = "domain, bus, device and function, such as \"0000:05:00.0\"; `lspci -D | grep -i nvm` lists those of SSDs";
        return Err(("is not a PCI address".into(), help.into()));
    }
    if full != text {
        return Err((
            "is not written in full".into(),
            format!("did you mean {full:?}?"),
        ));
    }
    Ok(())
}

fn is_pci_address(text: &str) -> bool {
    let hex = |part: &str, digits: usize| {
        part.len() == digits && u32::from_str_radix(part, 16).is_ok_and(|_| !part.starts_with('+'))
    };
    let Some((rest, function)) = text.rsplit_once('.') else {
        return false;
    };
    let mut parts = rest.split(':');
    let (domain, bus, device) = (parts.next(), parts.next(), parts.next());
    domain.is_some_and(|domain| (4..=8).any(|digits| hex(domain, digits)))
        && bus.is_some_and(|bus| hex(bus, 2))
        && device.is_some_and(|device| {
            hex(device, 2) && u8::from_str_radix(device, 16).is_ok_and(|nr| nr < 32)
        })
        && parts.next().is_none()
        && matches!(function.as_bytes(), [b'0'..=b'7'])
}

fn name(text: &str, longest: usize, extra: &str) -> Result<(), Complaint> {
    let length = text.chars().count();
    if length == 0 {
        return Err((
            "is empty".into(),
            format!("a name has 1 to {longest} characters"),
        ));
    }
    if length > longest {
        return Err((
            format!("is {length} characters long; a name has at most {longest}"),
            "choose a shorter one".into(),
        ));
    }
    if text.starts_with("lib") && text.ends_with(".so") {
        let bare = &text[3..text.len() - 3];
        return Err((
            "is a file name".into(),
            format!("give the module's name: \"{bare}\""),
        ));
    }
    let wrong = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || extra.contains(*c)));
    if let Some(wrong) = wrong {
        let listed: Vec<String> = extra.chars().map(|c| format!("`{c}`")).collect();
        return Err((
            format!("contains {wrong:?}"),
            format!(
                "a name consists of letters, digits and {}",
                listed.join(" ")
            ),
        ));
    }
    Ok(())
}

/// Levels of the log: ours, then DAOS's.
const LEVELS: [&str; 14] = [
    "OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE", "DBUG", "NOTE", "ERR", "CRIT", "ALRT",
    "EMRG", "EMIT", "FATAL",
];

fn log_mask(text: &str) -> Result<(), Complaint> {
    let mut levels_for_all = 0;
    for part in text.split(',').map(str::trim) {
        let level = match part.split_once('=') {
            Some((facility, level)) => {
                let facility = facility.trim();
                if facility.is_empty() || !facility.chars().all(is_facility) {
                    let what = format!("has no facility before the `=` of `{part}`");
                    return Err((what, MASK_HELP.into()));
                }
                level.trim()
            }
            None => {
                levels_for_all += 1;
                part
            }
        };
        log_level(level)?;
    }
    if levels_for_all > 1 {
        return Err(("has two levels for everything".into(), MASK_HELP.into()));
    }
    Ok(())
}

fn log_level(level: &str) -> Result<(), Complaint> {
    let upper = level.to_ascii_uppercase();
    if LEVELS.contains(&upper.as_str()) {
        return Ok(());
    }
    if level.is_empty() {
        return Err(("has an empty part".into(), MASK_HELP.into()));
    }
    let near = closest(&upper, LEVELS).map(|near| format!("did you mean `{near}`? "));
    Err((
        format!("has an unknown level `{level}`"),
        near.unwrap_or_default() + MASK_HELP,
    ))
}

const MASK_HELP: &str = "a mask is a level (OFF, ERROR, WARN, INFO, DEBUG, TRACE), then FACILITY=LEVEL for exceptions: \"WARN,rpc=DEBUG\"";

fn is_facility(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.')
}

/// The candidate that `given` was probably meant to be.
pub(crate) fn closest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let short: String = given.chars().take(64).collect(); // the comparison is quadratic
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&short, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
