//! Access control entries as text (DAOS `src/common/acl_util.c`): `ACCESS:FLAGS:PRINCIPAL:PERMISSIONS`.
//!
//! They are checked, so that a request that DAOS refuses is refused here, too. Keel enforces none yet: whoever reaches
//! the socket is allowed.

/// Whether one entry is well-formed.
pub(crate) fn is_valid(entry: &str) -> bool {
    let fields: Vec<_> = entry.split(':').collect();
    let [access, flags, principal, permissions] = fields[..] else {
        return false;
    };
    let of = |text: &str, letters: &str| text.chars().all(|c| letters.contains(c));
    let named = match principal.strip_suffix('@') {
        Some(name) => !name.is_empty() && !name.contains(char::is_whitespace),
        None => false,
    };
    !access.is_empty()
        && of(access, "AUL")
        && of(flags, "GSFP")
        && named
        && of(permissions, "rwcdtTaAo")
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn entries_of_daos_pass_and_broken_ones_do_not() {
        for good in [
            "A::OWNER@:rw",
            "A:G:GROUP@:rw",
            "A::bob@:rcta",
            "A::EVERYONE@:",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "",
            "A",
            "A::OWNER@",
            "A::OWNER@:rw:x",
            "X::OWNER@:rw",
            "A:Q:OWNER@:r",
            "A::OWNER:r",
            "A::@:r",
            "A::a@:z",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
