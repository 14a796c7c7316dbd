//! Sizes as an operator writes them: `"64MiB"`, `"1GiB"`, or a plain number of bytes.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes. Reads `"4KiB"`, `"64 MiB"`, `"1GiB"`, `"2TiB"`, `"512B"` or an integer; writes the largest unit that divides it.
///
/// Units are binary and say so: `MB` is refused, because half of its readers mean 10^6 and the other half 2^20.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(
    /// The size in bytes.
    pub u64,
);

const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl ByteSize {
    /// `n` KiB.
    pub const fn kib(n: u64) -> ByteSize {
        ByteSize(n << 10)
    }

    /// `n` MiB.
    pub const fn mib(n: u64) -> ByteSize {
        ByteSize(n << 20)
    }

    /// `n` GiB.
    pub const fn gib(n: u64) -> ByteSize {
        ByteSize(n << 30)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Reads a size with its unit.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the text and how a size is written.
    pub fn parse(text: &str) -> Result<ByteSize, String> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        if number.is_empty() {
            return Err(
                "a size is a whole number and a unit, such as \"64MiB\" or \"1GiB\"".into(),
            );
        }
        if unit.starts_with('.') {
            return Err(
                "a size is a whole number: write \"1536MiB\" for one and a half GiB".into(),
            );
        }
        let factor = match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() => 1,
            None => return Err(unknown_unit(unit)),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor))
            .map(ByteSize)
            .ok_or_else(|| "the size does not fit in 64 bits".into())
    }
}

fn unknown_unit(unit: &str) -> String {
    let all = "the units are B, KiB, MiB, GiB and TiB";
    let given = unit.to_lowercase();
    let near = UNITS.iter().find(|(name, _)| {
        let name = name.to_lowercase();
        // "gib", and the sloppy "g" and "gb"
        given == name || given == name[..1] || given == format!("{}b", &name[..1])
    });
    match near {
        Some((name, _)) => format!("unknown unit `{unit}`: did you mean `{name}`? ({all})"),
        None => format!("unknown unit `{unit}`: {all}"),
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&UNITS[4]);
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteSize, String> {
        ByteSize::parse(text)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(n))
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<ByteSize, E> {
                u64::try_from(n).map(ByteSize).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for ByteSize {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "format": "byte-size" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_write_the_same() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("4KiB", 4096),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(ByteSize::parse(text), Ok(ByteSize(bytes)));
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        assert_eq!(ByteSize::parse(" 1 GiB "), Ok(ByteSize::gib(1)));
        assert_eq!(ByteSize::parse("4096"), Ok(ByteSize(4096)));
        assert_eq!(ByteSize(1536 << 20).to_string(), "1536MiB");
    }

    #[test]
    fn wrong_sizes_say_what_is_wrong() {
        let said = |text: &str| ByteSize::parse(text).unwrap_err();
        assert!(said("").contains("whole number and a unit"));
        assert!(said("1.5GiB").contains("1536MiB"));
        assert!(said("1GB").contains("did you mean `GiB`"));
        assert!(said("1m").contains("did you mean `MiB`"));
        assert!(said("1mib").contains("did you mean `MiB`"));
        assert!(said("1 parsec").contains("units are B"));
        assert!(said("1é").contains("units are B"));
        assert!(said("99999999999TiB").contains("64 bits"));
        assert!(said("-1MiB").contains("whole number"));
    }
}
