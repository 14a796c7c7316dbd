//! [`NamespaceName`]: who a namespace is, whoever drives it.

/// What a namespace is told apart by: the best name that its controller has for it. All drivers make a device's UUID of this one, so that a
/// store moves between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamespaceName {
    /// Its UUID, or else its NGUID.
    Uuid([u8; 16]),
    /// Its EUI-64, or else the controller's serial number and its number on that, as text.
    Text(String),
}

impl NamespaceName {
    /// Of namespace `nsid` on the controller with this serial number; zeroes are no name.
    #[must_use]
    pub fn of(
        uuid: Option<[u8; 16]>,
        nguid: [u8; 16],
        eui64: [u8; 8],
        (serial, nsid): (&str, u32),
    ) -> NamespaceName {
        match uuid {
            Some(uuid) => NamespaceName::Uuid(uuid),
            None if nguid != [0; 16] => NamespaceName::Uuid(nguid),
            None if eui64 != [0; 8] => NamespaceName::Text(format!("eui64 {eui64:02x?}")),
            None => NamespaceName::Text(format!("nvme serial {serial} namespace {nsid}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_name_there_is_counts() {
        let of = |uuid, nguid, eui64| NamespaceName::of(uuid, nguid, eui64, ("S1", 2));
        let uuid = |byte| NamespaceName::Uuid([byte; 16]);
        assert_eq!(of(Some([1; 16]), [2; 16], [3; 8]), uuid(1));
        assert_eq!(of(None, [2; 16], [3; 8]), uuid(2));
        let text = |text: &str| NamespaceName::Text(text.to_owned());
        assert_eq!(
            of(None, [0; 16], [3; 8]),
            text("eui64 [03, 03, 03, 03, 03, 03, 03, 03]")
        );
        assert_eq!(
            of(None, [0; 16], [0; 8]),
            text("nvme serial S1 namespace 2")
        );
    }
}
