//! One operation, made as it is asked for: how, for how long. Its failure is an answer.

use module_sdk::Der;
use module_sdk::iv::{IvFailure, IvHow, IvSync};
use std::time::Duration;

use crate::notes::Note;
use crate::{note, text};

/// `SYNC WITHIN name[=text]`
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    what: What,
    within: Duration,
    name: &'a str,
    text: &'a str,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Fetch,
    Forget,
    Write { sync: IvSync, to_root: bool },
}

impl Asked<'_> {
    fn parse(body: &str) -> Option<Asked<'_>> {
        let (what, rest) = body.split_once(' ')?;
        let (within, rest) = rest.split_once(' ')?;
        let (name, text) = rest.split_once('=').unwrap_or((rest, ""));
        let write = |sync: &str, to_root| {
            let sync = match sync {
                "none" => IvSync::None,
                "lazy" => IvSync::Lazy,
                "eager" => IvSync::Eager,
                "bidirectional" => IvSync::Bidirectional,
                _ => return None,
            };
            Some(What::Write { sync, to_root })
        };
        let what = match what {
            "fetch" => What::Fetch,
            "forget" => What::Forget,
            sync => match sync.strip_suffix('!') {
                Some(sync) => write(sync, true)?,
                None => write(sync, false)?,
            },
        };
        Some(Asked {
            what,
            within: Duration::from_millis(within.parse().ok()?),
            name,
            text,
        })
    }

    async fn make(&self) -> Result<String, IvFailure> {
        let variable = note(self.name)?;
        match self.what {
            What::Fetch => {
                let found = variable.fetch(self.within).await?;
                Ok(format!("{}: {}", found.number, found.text))
            }
            What::Forget => {
                let how = IvHow::new(IvSync::Eager, self.within);
                Ok(text(variable.invalidate(how).await?))
            }
            What::Write { sync, to_root } => {
                let mut how = IvHow::new(sync, self.within);
                how.to_root = to_root;
                let new = Note {
                    text: self.text.to_owned(),
                    number: 0,
                };
                Ok(text(variable.update(&new, how).await?))
            }
        }
    }
}

pub(crate) async fn made(body: &str) -> Result<String, IvFailure> {
    let asked = Asked::parse(body).ok_or(Der::INVAL)?;
    Ok(asked
        .make()
        .await
        .unwrap_or_else(|failure| failure.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_spelled() {
        let asked = |what, name, text| {
            Some(Asked {
                what,
                within: Duration::from_millis(20),
                name,
                text,
            })
        };
        assert_eq!(
            Asked::parse("fetch 20 motto"),
            asked(What::Fetch, "motto", "")
        );
        assert_eq!(
            Asked::parse("forget 20 motto"),
            asked(What::Forget, "motto", "")
        );
        let write = |sync, to_root| What::Write { sync, to_root };
        assert_eq!(
            Asked::parse("none 20 motto=on and on"),
            asked(write(IvSync::None, false), "motto", "on and on")
        );
        assert_eq!(
            Asked::parse("bidirectional! 20 motto=="),
            asked(write(IvSync::Bidirectional, true), "motto", "=")
        );
        for bad in [
            "",
            "none",
            "none 20",
            "none x motto=1",
            "fetch! 20 motto",
            "never 20 motto=1",
        ] {
            assert_eq!(Asked::parse(bad), None, "{bad}");
        }
    }
}
