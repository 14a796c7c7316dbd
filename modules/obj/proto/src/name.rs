//! What objects, pools and containers may be called.

/// Longest object name, bytes of UTF-8.
pub const NAME_MAX: usize = 4096;
/// Longest label of a pool or container, bytes (DAOS's `DAOS_PROP_LABEL_MAX_LEN`).
pub const LABEL_MAX: usize = 127;

/// Why a name is refused. Maps to `DER_INVAL` on the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Object names have at least one byte.
    #[error("the object name is empty: give it at least one character")]
    EmptyName,
    /// Longer than [`NAME_MAX`].
    #[error("the object name has {0} bytes: at most {NAME_MAX} are allowed")]
    NameTooLong(usize),
    /// Labels have at least one character.
    #[error("the label is empty: give it 1 to {LABEL_MAX} characters")]
    EmptyLabel,
    /// Longer than [`LABEL_MAX`].
    #[error("the label has {0} bytes: at most {LABEL_MAX} are allowed")]
    LabelTooLong(usize),
    /// A character outside the label alphabet.
    #[error(
        "the label '{label}' contains {found:?}: letters, digits, '.', '_', ':' and '-' are allowed"
    )]
    LabelCharacter {
        /// The label as given.
        label: String,
        /// Its first character that is not allowed.
        found: char,
    },
    /// Would be taken for a uuid wherever a label or a uuid may be given.
    #[error("the label '{0}' reads as a uuid: choose another one")]
    LabelIsUuid(String),
}

/// An object name that was checked: any UTF-8 of 1 to [`NAME_MAX`] bytes, compared byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName<'a>(&'a str);

impl<'a> ObjectName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`NameError::EmptyName`], [`NameError::NameTooLong`].
    pub fn new(name: &'a str) -> Result<Self, NameError> {
        match name.len() {
            0 => Err(NameError::EmptyName),
            n if n > NAME_MAX => Err(NameError::NameTooLong(n)),
            _ => Ok(Self(name)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

/// Checks a label of a pool or container: DAOS's rules (`daos_label_is_valid`).
///
/// # Errors
/// What is wrong with it.
pub fn check_label(label: &str) -> Result<(), NameError> {
    match label.len() {
        0 => return Err(NameError::EmptyLabel),
        n if n > LABEL_MAX => return Err(NameError::LabelTooLong(n)),
        _ => {}
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".:_-".contains(c);
    if let Some(found) = label.chars().find(|&c| !allowed(c)) {
        return Err(NameError::LabelCharacter {
            label: label.to_owned(),
            found,
        });
    }
    if uuid::Uuid::parse_str(label).is_ok() {
        return Err(NameError::LabelIsUuid(label.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_any_utf8_of_1_to_4096_bytes() {
        assert_eq!(ObjectName::new(""), Err(NameError::EmptyName));
        for name in [
            "a",
            "/",
            "..",
            "\0",
            "\n",
            "ж/日本 🦀",
            &"x".repeat(NAME_MAX),
        ] {
            assert_eq!(ObjectName::new(name).unwrap().as_str(), name);
        }
        let long = "é".repeat(NAME_MAX / 2 + 1);
        assert_eq!(
            ObjectName::new(&long),
            Err(NameError::NameTooLong(NAME_MAX + 2))
        );
    }

    #[test]
    fn labels_follow_daos() {
        for good in ["p", "pool-1_a.b:c", &"x".repeat(LABEL_MAX)] {
            assert_eq!(check_label(good), Ok(()));
        }
        assert_eq!(check_label(""), Err(NameError::EmptyLabel));
        assert_eq!(
            check_label(&"x".repeat(128)),
            Err(NameError::LabelTooLong(128))
        );
        assert!(matches!(
            check_label("a b"),
            Err(NameError::LabelCharacter { found: ' ', .. })
        ));
        let uuid = "c5f1a7f0-7d0e-4e52-9f2e-7d6a1a2b3c4d";
        assert_eq!(check_label(uuid), Err(NameError::LabelIsUuid(uuid.into())));
    }
}
