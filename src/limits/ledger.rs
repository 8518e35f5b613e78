//! Who did what in the last minutes: for operators, and in bounded memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::model::{ClientKey, Timestamp};

/// Minutes that are remembered, the current one included.
pub const MINUTES: usize = 15;
/// Clients that are remembered. What others do beyond it is added up as nobody's.
const CLIENTS_MAX: usize = 8_192;
const MINUTE_MS: i64 = 60_000;

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// Opened a stream.
    Opened,
    /// Posted so many events in so many bytes.
    Posted { events: u64, bytes: u64 },
    /// Was refused because of a limit, or the deny list.
    Refused,
    /// Would have been, by a limit that is not enforced.
    WouldBeRefused,
}

/// Sums of one minute, or of all that are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since 1970.
    pub at: i64,
    pub opened: u64,
    pub posts: u64,
    pub events: u64,
    pub bytes: u64,
    pub refused: u64,
    pub would_be_refused: u64,
}

/// One client, over the minutes that are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `None`: all those who came when the book was full.
    pub client: Option<ClientKey>,
    pub total: Minute,
    /// The beginning of the minute in which it was last seen.
    pub last_seen: Timestamp,
}

#[derive(Debug, Default)]
pub struct Ledger {
    clients: DashMap<ClientKey, VecDeque<Minute>>,
    others: parking_lot::Mutex<VecDeque<Minute>>,
    /// The minute for which the book was last swept.
    swept: AtomicU64,
}

impl Ledger {
    pub fn note(&self, client: &ClientKey, did: Did) {
        if client.is_own() {
            return;
        }
        self.note_at(Timestamp::now().0 / MINUTE_MS, client, did);
    }

    /// All who did something in the minutes that are remembered, in no order.
    pub fn accounts(&self) -> Vec<Account> {
        self.accounts_at(Timestamp::now().0 / MINUTE_MS)
    }

    fn note_at(&self, now: i64, client: &ClientKey, did: Did) {
        self.sweep(now);
        // Looked up first: nearly always it is there, and its key needs not be cloned.
        if let Some(mut minutes) = self.clients.get_mut(client) {
            return add(&mut minutes, now, did);
        }
        // Those who are only refused leave room for those who are served: it is the latter that must not be overlooked.
        let refused = matches!(did, Did::Refused | Did::WouldBeRefused);
        let most = if refused { CLIENTS_MAX / 2 } else { CLIENTS_MAX };
        if self.clients.len() < most {
            add(&mut self.clients.entry(client.clone()).or_default(), now, did);
        } else {
            add(&mut self.others.lock(), now, did);
        }
    }

    fn accounts_at(&self, now: i64) -> Vec<Account> {
        let known = self.clients.iter().filter_map(|entry| account(Some(entry.key()), entry.value(), now));
        let mut accounts: Vec<Account> = known.collect();
        accounts.extend(account(None, &self.others.lock(), now));
        accounts
    }

    /// Once a minute: forgets those who were not seen for as long as anybody is remembered.
    fn sweep(&self, now: i64) {
        let minute = now.unsigned_abs();
        if self.swept.swap(minute, Ordering::Relaxed) != minute {
            self.clients.retain(|_, minutes| minutes.back().is_some_and(|last| is_remembered(last, now)));
        }
    }
}

fn is_remembered(minute: &Minute, now: i64) -> bool {
    // A clock that was set back forgets nobody's present.
    now - minute.at < MINUTES as i64
}

fn add(minutes: &mut VecDeque<Minute>, now: i64, did: Did) {
    if minutes.back().is_none_or(|last| last.at != now) {
        if minutes.len() == MINUTES {
            minutes.pop_front();
        }
        minutes.push_back(Minute { at: now, ..Minute::default() });
    }
    let Some(minute) = minutes.back_mut() else { return };
    match did {
        Did::Opened => minute.opened += 1,
        Did::Posted { events, bytes } => {
            minute.posts += 1;
            minute.events += events;
            minute.bytes += bytes;
        }
        Did::Refused => minute.refused += 1,
        Did::WouldBeRefused => minute.would_be_refused += 1,
    }
}

fn account(client: Option<&ClientKey>, minutes: &VecDeque<Minute>, now: i64) -> Option<Account> {
    let minutes: Vec<&Minute> = minutes.iter().filter(|minute| is_remembered(minute, now)).collect();
    let (first, last) = (minutes.first()?.at, minutes.last()?.at);
    let total = minutes.iter().fold(Minute { at: first, ..Minute::default() }, |sum, minute| Minute {
        at: sum.at,
        opened: sum.opened + minute.opened,
        posts: sum.posts + minute.posts,
        events: sum.events + minute.events,
        bytes: sum.bytes + minute.bytes,
        refused: sum.refused + minute.refused,
        would_be_refused: sum.would_be_refused + minute.would_be_refused,
    });
    Some(Account { client: client.cloned(), total, last_seen: Timestamp(last.saturating_mul(MINUTE_MS)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> ClientKey {
        ClientKey::of(std::net::Ipv4Addr::from_bits(number).into(), 32, 64)
    }

    #[test]
    fn what_was_done_in_the_last_minutes_is_added_up_and_then_forgotten() {
        let ledger = Ledger::default();
        ledger.note_at(100, &client(1), Did::Posted { events: 2, bytes: 50 });
        ledger.note_at(100, &client(2), Did::Refused);
        ledger.note_at(110, &client(1), Did::Posted { events: 1, bytes: 5 });
        ledger.note_at(110, &client(1), Did::WouldBeRefused);
        let of_one = |now| ledger.accounts_at(now).into_iter().find(|account| account.client == Some(client(1)));
        let both = of_one(114).expect("an account");
        assert_eq!((both.total.posts, both.total.events, both.total.bytes), (2, 3, 55));
        assert_eq!(both.last_seen, Timestamp(110 * MINUTE_MS));
        let later = of_one(115).expect("an account");
        assert_eq!((later.total.posts, later.total.events, later.total.would_be_refused), (1, 1, 1));
        ledger.note_at(124, &client(3), Did::Opened);
        assert_eq!(ledger.clients.len(), 2, "who was not seen any more is forgotten");
        assert_eq!(of_one(125), None);
    }

    #[test]
    fn an_attack_from_many_addresses_takes_bounded_memory() {
        let ledger = Ledger::default();
        let many = u32::try_from(CLIENTS_MAX + 100).expect("a small number");
        (0..many).for_each(|number| ledger.note_at(1, &client(number), Did::Refused));
        assert_eq!(ledger.clients.len(), CLIENTS_MAX / 2);
        ledger.note_at(1, &client(many), Did::Posted { events: 1, bytes: 1 });
        assert!(ledger.clients.contains_key(&client(many)), "a producer is not overlooked for it");
        let others = ledger.accounts_at(1).into_iter().find(|account| account.client.is_none()).expect("others");
        assert_eq!(others.total.refused, u64::from(many) - CLIENTS_MAX as u64 / 2);
        for minute in 2..100 {
            ledger.note_at(minute, &client(0), Did::Opened);
        }
        assert!(ledger.clients.get(&client(0)).is_some_and(|minutes| minutes.len() == MINUTES));
    }
}
