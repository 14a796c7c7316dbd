//! Opcodes: which operation of which protocol of which module.

use std::fmt;

/// A 32-bit RPC opcode as DAOS lays it out (`src/include/daos/rpc.h`): module id in bits 31-24, protocol version in
/// bits 23-16, operation index in bits 15-0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opcode(pub u32);

impl Opcode {
    /// The first request of a connection: who speaks, which protocol, which xstream it wants ([`crate::HelloRequest`]).
    /// Module id 0xFF is the transport's own, as CaRT keeps 0xFF for its internal RPCs.
    pub const HELLO: Opcode = Opcode(0xFF00_0001);
    /// The requester does not want the answer to its request of this id any more. It is not answered itself, and neither is the
    /// request, unless its answer was already on its way.
    pub const CANCEL: Opcode = Opcode(0xFF00_0002);
    /// Which protocol versions modules serve ([`crate::Versions`]).
    pub const VERSIONS: Opcode = Opcode(0xFF00_0003);
    /// The engine asks the requester for data that one of its requests offers ([`crate::Pull`]).
    pub const PULL: Opcode = Opcode(0xFF00_0004);

    /// An opcode of its three parts.
    pub const fn new(module: u8, version: u8, index: u16) -> Opcode {
        Opcode((module as u32) << 24 | (version as u32) << 16 | index as u32)
    }

    /// Module id.
    pub const fn module(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Protocol version of the module.
    pub const fn version(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Operation within the protocol.
    pub const fn index(self) -> u16 {
        self.0 as u16
    }
}

impl From<u32> for Opcode {
    fn from(raw: u32) -> Opcode {
        Opcode(raw)
    }
}

impl From<Opcode> for u32 {
    fn from(opcode: Opcode) -> u32 {
        opcode.0
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "0x{:08x} (module {}, version {}, operation {})",
            self.0,
            self.module(),
            self.version(),
            self.index()
        )
    }
}

impl fmt::Debug for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opcode(0x{:08x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_where_daos_puts_them() {
        let opcode = Opcode::new(4, 10, 0x1234);
        assert_eq!(opcode.0, 0x040A_1234);
        assert_eq!(
            (opcode.module(), opcode.version(), opcode.index()),
            (4, 10, 0x1234)
        );
        assert_eq!(Opcode::from(0x040A_1234), opcode);
        assert_eq!(
            opcode.to_string(),
            "0x040a1234 (module 4, version 10, operation 4660)"
        );
        assert_eq!((Opcode::HELLO.module(), Opcode::HELLO.index()), (0xFF, 1));
    }
}
