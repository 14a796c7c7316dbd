//! A list of CPUs as an operator writes it: `"2-9,12"`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Largest CPU number that a list may hold; kernels are built for 8,192 CPUs at most.
const LAST: u32 = 8191;

/// CPUs by the kernel's numbers, in the order of the text, each once; never empty. Reads and writes `"2-9,12"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<u32>);

impl CpuList {
    /// Reads a list.
    ///
    /// # Errors
    /// What is wrong with the text, as the end of a sentence that begins with its key, and the cure.
    pub fn parse(text: &str) -> Result<CpuList, (String, String)> {
        let mut list = Vec::new();
        if text.trim().is_empty() {
            let cure = "leave the key out to use every core that the process may use";
            return Err(("names no CPU".into(), cure.into()));
        }
        for part in text.split(',').map(str::trim) {
            let (first, last) = range(part)?;
            for cpu in first..=last {
                if list.contains(&cpu) {
                    return Err((format!("names CPU {cpu} twice"), "name each once".into()));
                }
                list.push(cpu);
            }
        }
        Ok(CpuList(list))
    }

    /// A list for messages, ascending; `none` if there are none.
    pub(crate) fn text_of(cpus: impl IntoIterator<Item = u32>) -> String {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        match cpus.is_empty() {
            true => "none".to_owned(),
            false => CpuList(cpus).to_string(),
        }
    }

    /// The CPUs, in the order of the text.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

fn range(part: &str) -> Result<(u32, u32), (String, String)> {
    let how = "write numbers and ranges: \"2-9,12\"";
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let number = digits.then(|| text.parse::<u32>().unwrap_or(u32::MAX));
        match number {
            Some(cpu) if cpu <= LAST => Ok(cpu),
            Some(_) => Err((
                format!("names CPU {text}"),
                format!("the last CPU that a kernel can have is {LAST}"),
            )),
            None if part.is_empty() => Err(("has an empty part".to_owned(), how.to_owned())),
            None => Err((format!("has the part `{part}`"), how.to_owned())),
        }
    };
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    if first > last {
        let cure = format!("write {last}-{first}");
        return Err((
            format!("has the range `{part}`, which ends before it begins"),
            cure,
        ));
    }
    Ok((first, last))
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for &cpu in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => runs.push((cpu, cpu)),
            }
        }
        for (at, (first, last)) in runs.into_iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for CpuList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CpuList, D::Error> {
        let text = String::deserialize(deserializer)?;
        CpuList::parse(&text).map_err(|(what, _)| de::Error::custom(what))
    }
}

impl JsonSchema for CpuList {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "CpuList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "cpu-list" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_and_read_back_the_same() {
        for text in ["2-9,12", "0", "5,2-3", "9,8,7"] {
            assert_eq!(CpuList::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            CpuList::parse(" 1 , 4 - 6 ").unwrap().as_slice(),
            [1, 4, 5, 6]
        );
        assert_eq!(CpuList::text_of([3, 1, 2, 7]), "1-3,7");
        assert_eq!(CpuList::text_of([]), "none");
    }

    #[test]
    fn wrong_lists_say_what_is_wrong() {
        let said = |text: &str| CpuList::parse(text).unwrap_err().0;
        assert_eq!(said(""), "names no CPU");
        assert_eq!(said("1,,2"), "has an empty part");
        assert_eq!(said("two"), "has the part `two`");
        assert_eq!(said("-1"), "has the part `-1`");
        assert_eq!(
            said("9-2"),
            "has the range `9-2`, which ends before it begins"
        );
        assert_eq!(said("1-3,2"), "names CPU 2 twice");
        assert_eq!(said("0-99999999999"), "names CPU 99999999999");
    }
}
