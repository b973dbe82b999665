//! Letters: in order, to the coordinator that there is, and to no other.

use std::sync::Arc;

use bytes::Bytes;
use mooring_terms::{NodeId, SessionId};
use parking_lot::Mutex;

use super::{Ear, Heard, LONG, Shared, at, begin_write, read, serving, slice, wait, write};
use crate::remote::{Correspondent, Letters};

/// Sends every letter back.
#[derive(Default)]
struct Echo {
    from: Mutex<Vec<Correspondent>>,
    gone: Mutex<Vec<u64>>,
}

impl Letters for Echo {
    fn letter(&self, from: &Correspondent, letter: Bytes) {
        self.from.lock().push(from.clone());
        // Its link may be gone.
        let _ = from.send(letter);
    }

    fn gone(&self, from: &Correspondent) {
        self.gone.lock().push(from.number());
    }
}

fn letter(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn met(ear: &Ear, epoch: u64) {
    wait("the coordinator is met", || ear.heard(&Heard::Met(epoch)));
}

#[test]
fn letters_reach_the_coordinator_and_come_back_in_order() {
    let shared = Shared::new();
    let (client, ear) = shared.client(2);
    assert!(client.send(letter("early")).is_err(), "there is nobody to write to");
    let echo = Arc::new(Echo::default());
    shared.coordinator.receive_letters(echo.clone());
    met(&ear, 1);
    let sent: Vec<Bytes> = (0..200_u8).map(|i| Bytes::from(vec![i; 100])).collect();
    for letter in &sent {
        client.send(letter.clone()).unwrap();
    }
    wait("all are back", || ear.0.lock().len() == sent.len() + 1);
    let expected: Vec<Heard> = sent.into_iter().map(Heard::Letter).collect();
    assert_eq!(ear.0.lock()[1..], expected);
    let from = echo.from.lock()[0].clone();
    assert_eq!((from.node(), from.client()), (NodeId(2), client.id()));
    client.close();
    wait("it is gone", || *echo.gone.lock() == [from.number()]);
}

#[test]
fn a_link_that_breaks_is_made_again_and_the_coordinator_sees_another_correspondent() {
    let shared = Shared::new();
    let echo = Arc::new(Echo::default());
    shared.coordinator.receive_letters(echo.clone());
    for node in [1, 2] {
        echo.from.lock().clear();
        let (client, ear) = shared.client(node);
        met(&ear, 1);
        client.send(letter("one")).unwrap();
        wait("it comes back", || ear.heard(&Heard::Letter(letter("one"))));
        let first = echo.from.lock()[0].clone();
        first.cut();
        wait("the link is gone there", || echo.gone.lock().contains(&first.number()));
        wait("it is met again", || ear.0.lock().len() == 4);
        client.send(letter("two")).unwrap();
        wait("that comes, too", || ear.0.lock().len() == 5);
        client.reconnect();
        wait("and once more", || ear.0.lock().len() == 7);
        let (met, lost) = (Heard::Met(1), Heard::Lost);
        let (one, two) = (Heard::Letter(letter("one")), Heard::Letter(letter("two")));
        let story = [met.clone(), one, lost.clone(), met.clone(), two, lost, met];
        assert_eq!(*ear.0.lock(), story);
        let second = echo.from.lock()[1].clone();
        assert_ne!(first.number(), second.number());
        assert!(first.send(letter("late")).is_err());
        client.close();
    }
}

#[test]
fn the_client_finds_the_coordinator_on_another_node_and_io_goes_on() {
    let shared = Shared::new();
    shared.coordinator.receive_letters(Arc::new(Echo::default()));
    let (client, ear) = shared.client(3);
    met(&ear, 1);
    shared.coordinator.register(SessionId(11), NodeId(3));
    let volume = client.open(SessionId(11)).unwrap();
    write(&volume, at(1, 1), 1);
    // The one before is still there, and knows nothing yet.
    shared.rig.hand_over(slice(0), 2);
    shared.rig.grant(1, 2, 2);
    let next = shared.rig.node(2).coordinate(1, 2, 8);
    serving(&next);
    next.register(SessionId(11), NodeId(3));
    write(&volume, at(1, 1), 2);
    let echo = Arc::new(Echo::default());
    next.receive_letters(echo.clone());
    met(&ear, 2);
    client.send(letter("to the second")).unwrap();
    wait("it answers", || ear.heard(&Heard::Letter(letter("to the second"))));
    assert_eq!(echo.from.lock().len(), 1);
    let story = ear.0.lock().clone();
    assert_eq!(story[..3], [Heard::Met(1), Heard::Lost, Heard::Met(2)]);
    for slice in 0..4 {
        write(&volume, at(slice, 1), 3);
        assert_eq!(read(&volume, at(slice, 1)), 3);
    }
}

#[test]
fn a_coordinator_that_ends_and_begins_again_gets_no_letters_of_the_one_before() {
    let shared = Shared::new();
    let first = Arc::new(Echo::default());
    shared.coordinator.receive_letters(first.clone());
    let (client, ear) = shared.client(2);
    met(&ear, 1);
    client.send(letter("first")).unwrap();
    wait("it is there", || first.from.lock().len() == 1);
    let old = first.from.lock()[0].clone();
    let Shared { rig, coordinator, dir, doors } = shared;
    drop(coordinator);
    wait("the client knows", || ear.heard(&Heard::Lost));
    assert!(client.send(letter("to nobody")).is_err());
    rig.grant(1, 1, 2);
    let coordinator = rig.node(1).coordinate(1, 2, 8);
    serving(&coordinator);
    let second = Arc::new(Echo::default());
    coordinator.receive_letters(second.clone());
    met(&ear, 2);
    // Of the coordinator that is no more.
    old.send(letter("from the past")).unwrap();
    client.send(letter("second")).unwrap();
    wait("it is back", || ear.heard(&Heard::Letter(letter("second"))));
    assert!(!ear.heard(&Heard::Letter(letter("from the past"))));
    assert_eq!((first.from.lock().len(), second.from.lock().len()), (1, 1));
    assert!(first.gone.lock().is_empty(), "its link was never gone");
    drop((client, coordinator, rig, dir, doors));
}
#[test]
fn a_session_of_one_node_is_nothing_on_another() {
    let shared = Shared::new();
    let own = shared.process(2, 11);
    write(&own, at(1, 1), 1);
    // Node 3 knows the session's name.
    let (thief, _) = shared.client(3);
    let stolen = thief.open(SessionId(11)).unwrap();
    let late: Vec<_> = (0..4).map(|slice| begin_write(&stolen, at(slice, 1), 2)).collect();
    for slice in 0..4 {
        write(&own, at(slice, 2), 1);
    }
    std::thread::sleep(super::A_WHILE);
    assert!(late.iter().all(|late| late.try_recv().is_err()), "it was served");
    assert_eq!(read(&own, at(1, 1)), 1);
    stolen.close();
    assert!(late[0].recv_timeout(LONG).unwrap().is_err());
}

#[test]
fn a_coordinator_that_is_dropped_late_takes_nothing_from_the_one_after_it() {
    let shared = Shared::new();
    shared.coordinator.receive_letters(Arc::new(Echo::default()));
    let (client, ear) = shared.client(2);
    met(&ear, 1);
    shared.rig.grant(1, 1, 2);
    let second = shared.rig.node(1).coordinate(1, 2, 8);
    serving(&second);
    second.receive_letters(Arc::new(Echo::default()));
    met(&ear, 2);
    let Shared { rig, coordinator, dir, doors } = shared;
    drop(coordinator);
    // Its I/O is answered, the sessions that it lets in do theirs, and letters reach it.
    let (done, answer) = std::sync::mpsc::channel();
    let data = Bytes::from(vec![7; mooring_terms::BLOCK_SIZE]);
    let block = mooring_replication::VolumeBlock(at(0, 1));
    second.write(block, data, true, Box::new(move |result| done.send(result.is_ok()).unwrap()));
    assert_eq!(answer.recv_timeout(LONG), Ok(true));
    second.register(SessionId(11), NodeId(2));
    let volume = client.open(SessionId(11)).unwrap();
    assert_eq!(read(&volume, at(0, 1)), 7);
    write(&volume, at(2, 1), 8);
    client.send(letter("second")).unwrap();
    wait("it is back", || ear.heard(&Heard::Letter(letter("second"))));
    drop((volume, client, second, rig, dir, doors));
}
