//! Operations of the obj protocol and their numbers.

/// Module id of the object module (DAOS `DAOS_OBJ_MODULE`).
pub const MODULE_ID: u32 = 4;
/// Version of the protocol described here.
pub const PROTOCOL_VERSION: u32 = 1;

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $text:literal;)*) => {
        /// An operation. The discriminant is the operation index in the opcode.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Op { $($(#[$doc])* $name = $index,)* }

        impl Op {
            /// Every operation, in ascending order of the index, without gaps.
            pub const ALL: &'static [Op] = &[$(Op::$name),*];

            /// Name in logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Op::$name => $text,)* }
            }
        }
    };
}

ops! {
    /// Creates a pool on every target. System xstream.
    PoolCreate = 0, "pool_create";
    /// Destroys a pool and gives its space back. System xstream.
    PoolDestroy = 1, "pool_destroy";
    /// All pools. System xstream.
    PoolList = 2, "pool_list";
    /// One pool with its space per target. System xstream.
    PoolQuery = 3, "pool_query";
    /// Creates a container on every target. System xstream.
    ContCreate = 4, "cont_create";
    /// Destroys a container with its objects. System xstream.
    ContDestroy = 5, "cont_destroy";
    /// Containers of a pool. System xstream.
    ContList = 6, "cont_list";
    /// Resolves a container. System xstream.
    ContQuery = 7, "cont_query";
    /// Stores an object of at most one piece. Head target.
    Put = 8, "obj_put";
    /// Opens a new version of a larger object. Head target.
    PutBegin = 9, "obj_put_begin";
    /// Stores one piece of an open version. The piece's target.
    PutPiece = 10, "obj_put_piece";
    /// Makes an open version the object. Head target.
    PutCommit = 11, "obj_put_commit";
    /// Drops an open version. Head target.
    PutAbort = 12, "obj_put_abort";
    /// Extends the lease of an open version. Head target.
    PutRenew = 13, "obj_put_renew";
    /// Head record and the wanted part of piece 0. Head target.
    Get = 14, "obj_get";
    /// Part of a piece. The piece's target.
    GetPiece = 15, "obj_get_piece";
    /// Extends a reader's pin. Head target.
    GetRenew = 16, "obj_get_renew";
    /// Gives a reader's pin back. Head target.
    GetClose = 17, "obj_get_close";
    /// Head record. Head target.
    Stat = 18, "obj_stat";
    /// Removes an object. Head target.
    Remove = 19, "obj_rm";
    /// A page of names. Any target, for the heads it holds.
    List = 20, "obj_ls";
    /// Space on every target, whatever the pools. System xstream.
    TargetList = 21, "target_list";
    /// Opens a container: a handle for requests. System xstream.
    ContOpen = 22, "cont_open";
    /// Gives a handle back. System xstream.
    ContClose = 23, "cont_close";
    /// Takes all connections of a pool away. System xstream.
    PoolEvict = 24, "pool_evict";
    /// Connects to a pool: a handle for opening containers. System xstream.
    PoolConnect = 25, "pool_connect";
    /// Gives a connection back. System xstream.
    PoolDisconnect = 26, "pool_disconnect";
    /// Changes a pool's properties. System xstream.
    PoolSetProp = 27, "pool_set_prop";
    /// Changes a container's properties. System xstream.
    ContSetProp = 28, "cont_set_prop";
    /// Map and properties of a pool. Any xstream.
    PoolMap = 29, "pool_map";
    /// Properties of a container. Any xstream.
    ContProp = 30, "cont_prop";
}

impl Op {
    /// The index in the opcode.
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The opcode on the wire: module id, version, index (DAOS `DAOS_RPC_OPCODE`).
    pub const fn opcode(self) -> u32 {
        MODULE_ID << 24 | PROTOCOL_VERSION << 16 | self as u32
    }

    /// The operation of an opcode of this module and version.
    pub fn from_opcode(opcode: u32) -> Option<Op> {
        let op = *Op::ALL.get((opcode & 0xffff) as usize)?;
        (op.opcode() == opcode).then_some(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_have_no_gaps_and_opcodes_read_back() {
        for (index, op) in Op::ALL.iter().enumerate() {
            assert_eq!(op.index() as usize, index);
            assert_eq!(Op::from_opcode(op.opcode()), Some(*op));
        }
        assert_eq!(Op::PutPiece.opcode(), 0x0401_000a);
        assert_eq!(Op::from_opcode(0x0402_000a), None);
        assert_eq!(Op::from_opcode(0x0401_00ff), None);
    }
}
