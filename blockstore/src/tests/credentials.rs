//! Nobody speaks for somebody else: not with a seal, and not under a client's name.

use std::time::Duration;

use super::rig::Rig;
use crate::volume::Attachment;

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_seal_of_who_does_not_hold_the_volume_is_refused() {
    let rig = Rig::new(3, 1);
    rig.make(1, 1);
    let holder = rig.attach(1, 2);
    holder.write(1, 1);
    // A higher epoch, from an admitted node that Raft doesn't name; and from one beside the primary.
    let strangers = [rig.node(3).open(1, u64::MAX, 77), rig.node(1).open(1, u64::MAX, 78)];
    for stranger in strangers {
        assert!(!stranger.serves_within(SOON), "a stranger's seal was taken");
    }
    // The holder's own node, with an epoch that was never granted.
    let greedy = rig.node(2).open(1, 9, 79);
    assert!(!greedy.serves_within(SOON), "an epoch that nobody granted was taken");
    assert_eq!(*holder.0.state().borrow(), Attachment::Serving);
}

#[test]
fn a_holder_that_was_followed_is_told_by_whom() {
    let rig = Rig::new(3, 1);
    rig.make(1, 1);
    let first = rig.attach(1, 2);
    first.write(1, 1);
    rig.grant(1, 3, 2);
    let second = rig.node(3).open(1, 2, 300);
    assert!(second.serves_within(SOON * 2));
    let answer = first.begin_write(1, 2).recv_timeout(SOON * 2);
    assert_eq!(answer, Ok(false), "a fenced holder's write is refused");
    // The refusal comes first, and what it means right after it.
    assert!(first.becomes(SOON, |state| matches!(state, Attachment::Fenced { .. })));
    second.write(2, 2);
    assert_eq!(second.read(1), 1);
}

#[test]
fn a_client_is_not_taken_over_by_another_node() {
    let rig = Rig::new(3, 1);
    rig.make(1, 1);
    let client = rig.attach(1, 2);
    client.write(1, 1);
    // The same client number, from another node: it would get the first one's answers.
    let thief = rig.node(3).open(1, 1, client.0.client().0);
    assert!(!thief.serves_within(SOON), "another node speaks under the client's name");
    for block in 0..20 {
        client.write(block, 2);
    }
}

#[test]
fn a_client_that_goes_leaves_nothing_behind() {
    let rig = Rig::new(2, 1);
    rig.make(1, 1);
    let known = || rig.node(1).plane.known_clients();
    for epoch in 1..=5 {
        rig.grant(1, 2, epoch);
        let client = rig.node(2).open(1, epoch, 50 + epoch);
        assert!(client.serves_within(Duration::from_secs(10)));
        assert!(known() >= 1);
        client.0.close();
        rig.node(2).plane.remove_volume(&client.0);
    }
    let deadline = std::time::Instant::now() + SOON;
    while known() > 0 {
        assert!(std::time::Instant::now() < deadline, "{} clients are still known", known());
        std::thread::sleep(Duration::from_millis(5));
    }
}
