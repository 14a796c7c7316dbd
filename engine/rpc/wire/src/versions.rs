//! VERSIONS: which protocol versions the modules of an engine serve (DAOS: `crt_proto_query`).
//!
//! A module serves at most two at a time, so that engines and clients can be upgraded one after the other; who calls takes the
//! highest that both know. Request: the module's id, one byte. Answer: its versions, one byte each; none: no such module.

use daos_errno::Der;

/// The versions of one module that an engine serves.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Versions(pub Vec<u8>);

impl Versions {
    /// The request's body.
    pub fn ask(module: u8) -> Vec<u8> {
        vec![module]
    }

    /// The module that a request asks for; `None`: it is none.
    pub fn asked(body: &[u8]) -> Option<u8> {
        match body {
            [module] => Some(*module),
            _ => None,
        }
    }

    /// The highest that is among `known`, too.
    ///
    /// # Errors
    /// UNREG: the engine has no such module. PROTO: no version in common.
    pub fn highest(&self, known: &[u8]) -> Result<u8, Der> {
        let common = self.0.iter().filter(|version| known.contains(version));
        match common.max() {
            Some(version) => Ok(*version),
            None if self.0.is_empty() => Err(Der::UNREG),
            None => Err(Der::PROTO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_taken() {
        let served = Versions(vec![4, 3]);
        assert_eq!(served.highest(&[2, 3]), Ok(3));
        assert_eq!(served.highest(&[5, 4, 3]), Ok(4));
        assert_eq!(served.highest(&[5]), Err(Der::PROTO));
        assert_eq!(Versions::default().highest(&[1]), Err(Der::UNREG));
        assert_eq!(Versions::asked(&Versions::ask(9)), Some(9));
        assert_eq!(Versions::asked(&[]), None);
    }
}
