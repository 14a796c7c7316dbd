//! The service over the xstreams of an engine, offload ones included, and what it counts.
#![allow(missing_docs, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{HandlerEntry, Opcode, Options, Registry, Request, RpcServer, call};
use rpc_wire::Client;

mod sets;
use sets::xstreams;

const WHERE: Opcode = Opcode::new(7, 2, 0);
const LATER: Opcode = Opcode::new(7, 2, 1);

fn name_here() -> String {
    engine_xstream::current()
        .map(|xstream| xstream.name().to_owned())
        .unwrap_or_default()
}

fn registry() -> Registry {
    let registry = Registry::new();
    let answer_where = |request: Request| request.reply(0, name_here().as_bytes(), None);
    // Moves into a ULT of the xstream, as handlers that wait do.
    let answer_later = |request: Request| {
        let xstream = engine_xstream::current().unwrap();
        let task = async move {
            spdk_thread::sleep(1_000_000).await;
            request.reply(0, name_here().as_bytes(), None);
        };
        drop(xstream.spawn("later", task).unwrap());
    };
    let handlers = vec![
        HandlerEntry::new(0, "where", Arc::new(answer_where)),
        HandlerEntry::new(1, "later", Arc::new(answer_later)),
    ];
    registry.register_protocol(7, 2, handlers).unwrap();
    registry
}

#[test]
fn tags_are_the_system_and_main_xstreams_and_offload_ones_may_call() {
    engine_telemetry::install();
    let set = xstreams();
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let server = RpcServer::start(set.xstreams(), registry(), listen, Options::default()).unwrap();
    let names = ["keel_sys_0", "keel_io_0", "keel_io_1"];
    for (tag, name) in names.iter().enumerate() {
        let mut client = Client::connect(server.addr().unwrap(), tag as u32).unwrap();
        for opcode in [WHERE, LATER] {
            let reply = client.call(opcode, b"", None).unwrap();
            assert_eq!(String::from_utf8(reply.body).unwrap(), *name);
        }
    }
    for xstream in set.all() {
        let call_all = || async {
            let mut answers = Vec::new();
            for tag in 0..=3 {
                let reply = call(tag, LATER, vec![], None).await.unwrap();
                answers.push((reply.status, String::from_utf8(reply.body).unwrap()));
            }
            answers
        };
        let ask = move |_: &engine_xstream::Xstream| call_all();
        let answers = xstream
            .execute_blocking("ask", Duration::from_secs(20), ask)
            .unwrap();
        for (tag, name) in names.iter().enumerate() {
            assert_eq!(answers[tag], (0, (*name).to_owned()));
        }
        assert_eq!(answers[3].0, Der::BAD_TARGET.neg());
    }
    let text = engine_telemetry::render();
    let value = |series: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(series));
        line.unwrap_or_else(|| panic!("{series} in\n{text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(value("keel_rpc_requests_total{xstream=\"keel_io_1\"}") >= 2.0);
    assert!(value("keel_rpc_received_bytes_total{xstream=\"keel_io_0\"}") >= 128.0);
    assert!(value("keel_rpc_sent_bytes_total{xstream=\"keel_io_0\"}") >= 128.0);
    assert!(value("keel_rpc_errors_total{xstream=\"keel_sys_0\"}") >= 1.0);
    assert_eq!(value("keel_rpc_in_flight{xstream=\"keel_io_0\"}"), 0.0);
    server.close();
    set.shutdown(Duration::from_secs(20), |_| {})
        .expect("the service leaves nothing behind");
}
