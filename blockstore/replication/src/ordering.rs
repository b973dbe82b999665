//! What must be durable, or known, before what is done: every ordering rule of the crate, and why.
//! There is no code here: the rest of the crate is to be read, and changed, against this list.
//!
//! **Writes**
//! 1. *A record is appended here before, and sent in the order in which, it is numbered.* The log of
//!    every replica is a prefix of the primary's; positions then say everything.
//! 2. *A write is answered when every required replica has received it.* Any of them may be the next
//!    primary. Required are the in-sync members, and while a change is proposed or in doubt also
//!    those that it would make in sync: either set may be the one that goes on.
//! 3. *The last survivor of several answers only what is durable on it.* Nobody else could bring an
//!    acknowledged write back after a reboot.
//! 4. *FLUSH, FUA and seals are answered when durable on every required replica.* After a power cut of
//!    all, any of them may be the furthest that is left.
//! 5. *The engine forgets a record's address only when the record is durable everywhere* (not when
//!    it is received everywhere): after a power cut of all, whoever has it can still give it.
//!
//! **Reads**
//! 6. *A read is answered when the newest version in it is committed.* What could be rolled back is
//!    never seen.
//! 7. *The leases are checked after the read, just before the answer.* A primary that was replaced
//!    meanwhile has lost the lease of whoever replaced it.
//!
//! **Leases**
//! 8. *A lease counts from sending, the grace from receiving, and is longer.* When a secondary may
//!    take over, the primary's lease with it is over, without any clock in common.
//! 9. *A secondary stops vouching before it proposes to take over,* and until the epoch moves or the
//!    change is clearly refused. Else it would renew the lease that it is about to break.
//! 10. *An answer counts only for what was vouched for when the beacon was sent,* and only if the
//!     peer noted that it heard us for the same slice and epoch.
//!
//! **Epoch start**
//! 11. *A promise is durable before it is answered, and the position is taken after it.* Once told,
//!     nothing of an older epoch can be added behind it.
//! 12. *What any in-sync replica has more is pulled before the epoch's first record is written.*
//!     It may have been acknowledged.
//! 13. *The first record is durable on all before the epoch serves.* It carries the table by which
//!     logs are compared; and it makes durable all that came before.
//!
//! **Joins**
//! 14. *The supersede is durable before anything is copied,* else a crash could leave what was never
//!     agreed on beside what was copied, with higher versions.
//! 15. *Records flow, on the same stream, from before the first block is read for the copy.* A copy
//!     never carries a version that the joiner's log doesn't reach.
//! 16. *The note of being complete is durable before it is told, and told before the change is
//!     proposed.* Raft lists only who would survive its own reboot as a full replica.
//!
//! **Restarts**
//! 17. *A restarted replica vouches for nothing and acknowledges nothing until it is listed with its
//!     new incarnation.* Its word stands for what its earlier opening had, and that may be gone.
//! 18. *A restarted primary proposes itself only with the tail of a listed member,* or if its machine
//!     kept running: one member that was not restarted has everything acknowledged.
//!
//! **Sessions**
//! 19. *A session's request is checked when it is admitted, which is when it is ordered; a read once
//!     more when it is answered.* What waits has no right yet, and what is ordered comes before all
//!     that is ordered after the fence.
//! 20. *A new primary serves no session,* and one that serves was told so in this reign, under the
//!     attachment sealed last. A fence that only its predecessor heard of is then a fence here.
//! 21. *A registration holds from a moment of the primary's own, told in an earlier answer.* However
//!     late it arrives, it is over when the coordinator says that it is.
