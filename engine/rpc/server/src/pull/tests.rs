use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use super::*;
use crate::options::BulkClass;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn pools(count: usize) -> BulkPools {
    let buffer_len = 4096;
    BulkPools::new(&[BulkClass { buffer_len, count }]).unwrap()
}

fn some_slot() -> Slot {
    Slot::Session(Key::from_u64(0))
}

/// Starts what can be started; the ids and numbers of what was asked for, and whether the next waits for memory.
fn start(pulls: &Pulls, memory: &BulkPools, canceled: u64) -> (Vec<(u64, u64)>, bool) {
    let mut sent = Vec::new();
    let waits = pulls.start(
        memory,
        |id| id == canceled,
        |header, body| {
            let pull = Pull::decode(&body).unwrap();
            assert_eq!((header.opcode(), header.flags), (Opcode::PULL, 0));
            sent.push((header.request_id, pull.number));
        },
    );
    (sent, waits)
}

fn answer(number: u64, memory: Option<Bulk>) -> Frame<Bulk> {
    let header = Header {
        request_id: number,
        bulk_len: 100,
        ..Header::default()
    };
    Frame {
        header,
        body: Vec::new(),
        bulk: memory,
        damage: None,
    }
}

fn poll(future: &mut PullFuture) -> Poll<Result<DmaBuf, Der>> {
    let waker = Waker::noop();
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn ask(pulls: &Pulls, request_id: u64) -> PullFuture {
    let (future, ticket) = PullFuture::asked(some_slot(), request_id, (0, 100));
    pulls.queue(ticket);
    future
}

/// What comes in for `number`.
fn come(pulls: &Pulls, number: u64) -> bool {
    let frame = answer(number, None);
    let Grant::Take(memory) = pulls.place(&frame.header) else {
        return false;
    };
    pulls.finish(answer(number, Some(memory)))
}

#[test]
fn so_many_are_under_way_and_the_others_wait_in_line() {
    let (pulls, memory) = (Pulls::new(2), pools(8));
    let mut futures: Vec<PullFuture> = (1..=4).map(|id| ask(&pulls, id)).collect();
    let (sent, waits) = start(&pulls, &memory, 0);
    assert_eq!((sent.len(), waits), (2, false));
    assert!(pulls.is_under_way() && start(&pulls, &memory, 0).0.is_empty());
    assert!(come(&pulls, sent[1].1));
    assert!(matches!(poll(&mut futures[1]), Poll::Ready(Ok(buffer)) if buffer.len() == 100));
    assert!(poll(&mut futures[0]).is_pending());
    // The third is dropped before its turn, so the fourth has it.
    drop(futures.remove(2));
    let (sent, _) = start(&pulls, &memory, 0);
    assert_eq!(sent.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [4]);
    pulls.fail_all();
    assert!(!pulls.is_under_way());
    for future in [0, 2] {
        assert!(matches!(
            poll(&mut futures[future]),
            Poll::Ready(Err(Der::UNREACH))
        ));
    }
}

#[test]
fn memory_comes_before_the_question() {
    let (pulls, memory) = (Pulls::new(8), pools(1));
    let mut first = ask(&pulls, 1);
    let second = ask(&pulls, 2);
    let (sent, waits) = start(&pulls, &memory, 0);
    assert_eq!((sent.len(), waits), (1, true));
    assert!(come(&pulls, sent[0].1));
    assert!(start(&pulls, &memory, 0).1, "the first buffer is not back");
    drop(poll(&mut first));
    assert_eq!(start(&pulls, &memory, 0).0.len(), 1);
    drop(second);
}

#[test]
fn a_request_taken_back_asks_for_nothing_and_what_comes_is_thrown_away() {
    let (pulls, memory) = (Pulls::new(8), pools(2));
    let mut canceled = ask(&pulls, 5);
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Arc::clone(&flag).into();
    let pending = Pin::new(&mut canceled).poll(&mut Context::from_waker(&waker));
    assert!(pending.is_pending());
    let dropped = ask(&pulls, 6);
    let (sent, _) = start(&pulls, &memory, 5);
    assert_eq!(sent.len(), 1, "only the other one");
    assert!(flag.0.load(Ordering::Relaxed));
    assert!(matches!(
        poll(&mut canceled),
        Poll::Ready(Err(Der::CANCELED))
    ));
    drop(dropped);
    assert!(come(&pulls, sent[0].1), "it was asked for");
    let both = [memory.get(100), memory.get(100)];
    assert!(both.iter().all(Option::is_some), "all memory is back");
}

#[test]
fn what_was_not_asked_for_has_no_place() {
    let (pulls, memory) = (Pulls::new(8), pools(2));
    let mut future = ask(&pulls, 1);
    let number = start(&pulls, &memory, 0).0[0].1;
    assert!(!come(&pulls, number + 1));
    let mut short = answer(number, None);
    short.header.bulk_len = 99;
    assert!(matches!(pulls.place(&short.header), Grant::Skip));
    // No data and no reason.
    assert!(!pulls.finish(answer(number, None)));
    assert!(matches!(poll(&mut future), Poll::Ready(Err(Der::PROTO))));
    // A reason.
    let mut future = ask(&pulls, 2);
    let number = start(&pulls, &memory, 0).0[0].1;
    let mut refusal = answer(number, None);
    refusal.header.status = Der::NONEXIST.neg();
    assert!(pulls.finish(refusal));
    assert!(matches!(poll(&mut future), Poll::Ready(Err(Der::NONEXIST))));
    assert!(matches!(poll(&mut future), Poll::Ready(Err(Der::CANCELED))));
}

#[test]
fn too_many_in_line_are_refused() {
    let pulls = Pulls::new(1);
    let mut futures: Vec<PullFuture> = (0..=MAX_WAITING as u64).map(|id| ask(&pulls, id)).collect();
    let last = futures.last_mut().unwrap();
    assert!(matches!(poll(last), Poll::Ready(Err(Der::OVERLOAD_RETRY))));
    assert!(poll(&mut futures[0]).is_pending());
}
