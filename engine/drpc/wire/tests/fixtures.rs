//! Packets as bytes, derived by hand from the protobuf encoding and DAOS's chunk header: what is on the wire stays what it is.
#![cfg(target_endian = "little")]

use drpc_wire::{
    Assembler, Call, Chunker, Framing, MAX_CHUNK_DATA, MAX_MESSAGE, Message, Progress, Response,
    Status, methods, mgmt, modules, srv,
};

/// The bytes of a fixture: hexadecimal pairs, `#` starts a comment line.
fn bytes(text: &str) -> Vec<u8> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|pair| u8::from_str_radix(pair, 16).expect("fixtures are hexadecimal pairs"))
        .collect()
}

/// The message is sent as exactly these bytes in one packet, and these bytes are read as this message.
#[track_caller]
fn assert_wire<M: Message + Default + PartialEq + std::fmt::Debug>(
    message: &M,
    framing: Framing,
    fixture: &str,
) {
    let packet = bytes(fixture);
    let sent = Chunker::new(message.encode_to_vec(), framing).expect("fits");
    assert_eq!(sent.packet().expect("one packet").to_vec(), packet);
    let mut assembler = Assembler::with_framing(MAX_MESSAGE, framing);
    let Ok(Progress::Message(received)) = assembler.push(&packet) else {
        panic!("the fixture is a whole message");
    };
    assert_eq!(&M::decode(received.as_ref()).expect("decodes"), message);
}

fn call(module: i32, method: i32, sequence: i64, body: Vec<u8>) -> Call {
    Call {
        module,
        method,
        sequence,
        body,
    }
}

#[test]
fn call_ping_rank() {
    assert_wire(
        &call(modules::MGMT, methods::PING_RANK, 1, vec![]),
        Framing::Chunked,
        include_str!("fixtures/call_ping_rank.hex"),
    );
}

#[test]
fn bare_call_ping_rank_is_recognised() {
    let fixture = include_str!("fixtures/bare_call_ping_rank.hex");
    assert_wire(
        &call(modules::MGMT, methods::PING_RANK, 1, vec![]),
        Framing::Bare,
        fixture,
    );
    assert_eq!(drpc_wire::recognise(&bytes(fixture)), Framing::Bare);
}

#[test]
fn call_set_rank() {
    let body = mgmt::SetRankReq {
        rank: 3,
        map_version: 7,
        daos_version: 0,
    };
    assert_wire(
        &call(modules::MGMT, methods::SET_RANK, 2, body.encode_to_vec()),
        Framing::Chunked,
        include_str!("fixtures/call_set_rank.hex"),
    );
}

#[test]
fn call_notify_ready() {
    let body = srv::NotifyReadyReq {
        uri: "tcp://127.0.0.1:31416".to_owned(),
        nctxs: 5,
        drpc_listener_sock: "/run/keel/daos_engine_42.sock".to_owned(),
        instance_idx: 1,
        ntgts: 4,
        ..srv::NotifyReadyReq::default()
    };
    assert_wire(
        &call(modules::SRV, methods::NOTIFY_READY, 1, body.encode_to_vec()),
        Framing::Chunked,
        include_str!("fixtures/call_notify_ready.hex"),
    );
}

#[test]
fn response_success_to_sequence_zero_is_an_empty_message_of_one_chunk() {
    assert_wire(
        &Response::with_status(0, Status::Success),
        Framing::Chunked,
        include_str!("fixtures/response_success_empty.hex"),
    );
}

#[test]
fn response_to_an_unreadable_call_has_sequence_minus_one() {
    assert_wire(
        &Response::unreadable_call(),
        Framing::Chunked,
        include_str!("fixtures/response_failed_unmarshal_call.hex"),
    );
}

#[test]
fn response_with_a_daos_error_in_its_body() {
    let body = mgmt::DaosResp {
        status: daos_errno::Der::INVAL.neg(),
    };
    let response = Response {
        sequence: 2,
        status: Status::Success.into(),
        body: body.encode_to_vec(),
    };
    assert_wire(
        &response,
        Framing::Chunked,
        include_str!("fixtures/response_daos_resp_inval.hex"),
    );
}

#[test]
fn second_chunk_of_a_message_one_byte_over_a_packet() {
    let mut chunker = Chunker::new(vec![0; MAX_CHUNK_DATA + 1], Framing::Chunked).expect("fits");
    chunker.advance();
    assert_eq!(
        chunker.packet().expect("two packets").to_vec(),
        bytes(include_str!("fixtures/second_chunk_of_131049_bytes.hex"))
    );
}

#[test]
fn status_numbers_are_daos_numbers() {
    let numbers: Vec<i32> = [
        Status::Success,
        Status::Submitted,
        Status::Failure,
        Status::UnknownModule,
        Status::UnknownMethod,
        Status::FailedUnmarshalCall,
        Status::FailedUnmarshalPayload,
        Status::FailedMarshal,
    ]
    .into_iter()
    .map(i32::from)
    .collect();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

#[test]
fn failure_texts_are_daos_texts() {
    assert_eq!(Status::UnknownModule.text(), "unrecognized module ID");
    assert_eq!(Status::UnknownMethod.text(), "unrecognized method ID");
    assert_eq!(
        Status::FailedUnmarshalCall.text(),
        "failed to unmarshal incoming call"
    );
    assert_eq!(
        Status::FailedUnmarshalPayload.text(),
        "failed to unmarshal method-specific payload"
    );
    assert_eq!(
        Status::FailedMarshal.text(),
        "failed to marshal response payload"
    );
}

#[test]
fn method_numbers_are_unique_and_the_retired_ones_stay_unused() {
    let mut seen = std::collections::HashSet::new();
    for (module, number, name) in methods::ALL {
        assert!(seen.insert((*module, *number)), "{name} is not unique");
        assert_eq!(methods::name(*module, *number), Some(*name));
        assert_eq!(methods::by_name(name), Some((*module, *number)));
        assert!(modules::name(*module).is_some());
        assert!(![203, 204, 205, 214, 219, 234, 302].contains(number));
    }
    assert_eq!(methods::by_name("ping_rank"), Some((2, 225)));
    assert_eq!(methods::POOL_SELF_HEAL_EVAL, 252);
    assert_eq!(methods::SEC_VALIDATE_CREDS, 401);
}
