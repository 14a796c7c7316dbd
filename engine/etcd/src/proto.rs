//! Generated messages; `proto/etcd.proto` documents each field.
#![allow(clippy::all, missing_docs, unreachable_pub, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
