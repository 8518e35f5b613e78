//! Turns: so many at once in all, so many of each client, and the others wait, first come first served.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::ClientKey;

/// Cheap to clone. Who waits is bounded by who can ask: each reader waits for one turn at most.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    most: usize,
    most_of_client: usize,
    running: usize,
    of_client: HashMap<ClientKey, usize>,
    waiting: VecDeque<(ClientKey, oneshot::Sender<Turn>)>,
}

/// A turn. Given back when dropped, to the first who waits and may have it.
#[derive(Debug)]
pub struct Turn {
    client: ClientKey,
    turns: Turns,
}

impl Turns {
    /// 0 is no limit.
    pub fn new(most: u32, most_of_client: u32) -> Self {
        let state =
            State { most: 0, most_of_client: 0, running: 0, of_client: HashMap::new(), waiting: VecDeque::new() };
        let turns = Self(Arc::new(Mutex::new(state)));
        turns.set(most, most_of_client);
        turns
    }

    /// From now on.
    pub(super) fn set(&self, most: u32, most_of_client: u32) {
        let unlimited = |most: u32| if most == 0 { usize::MAX } else { most as usize };
        {
            let mut state = self.0.lock();
            (state.most, state.most_of_client) = (unlimited(most), unlimited(most_of_client));
        }
        self.hand_out();
    }

    /// Waits for a turn. Given up by dropping the wait.
    pub async fn take(&self, client: &ClientKey) -> Turn {
        let (give, given) = oneshot::channel();
        self.0.lock().waiting.push_back((client.clone(), give));
        self.hand_out();
        // Who gives keeps nothing: a channel that is cut would be a fault of this file.
        given.await.unwrap_or_else(|_| Turn { client: client.clone(), turns: Self::new(0, 0) })
    }

    fn hand_out(&self) {
        loop {
            let (client, give) = {
                let mut state = self.0.lock();
                let Some(next) = state.next() else { return };
                next
            };
            // To one who has left: dropped here, it is given back, outside the lock.
            drop(give.send(Turn { client, turns: self.clone() }));
        }
    }
}

impl State {
    /// Takes the first out of the line who may have a turn, and counts it.
    fn next(&mut self) -> Option<(ClientKey, oneshot::Sender<Turn>)> {
        self.waiting.retain(|(_, give)| !give.is_closed());
        if self.running >= self.most {
            return None;
        }
        let may = |(client, _): &(ClientKey, _)| {
            self.of_client.get(client).copied().unwrap_or_default() < self.most_of_client
        };
        let first = self.waiting.iter().position(may)?;
        let (client, give) = self.waiting.remove(first)?;
        self.running += 1;
        *self.of_client.entry(client.clone()).or_default() += 1;
        Some((client, give))
    }

    fn give_back(&mut self, client: &ClientKey) {
        self.running = self.running.saturating_sub(1);
        if let Some(of_client) = self.of_client.get_mut(client) {
            *of_client -= 1;
            if *of_client == 0 {
                self.of_client.remove(client);
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.lock().give_back(&self.client);
        self.turns.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn client(number: u32) -> ClientKey {
        ClientKey::of(std::net::Ipv4Addr::from_bits(number).into(), 32, 64)
    }

    #[test]
    fn one_client_cannot_keep_the_others_waiting() {
        let turns = Turns::new(3, 2);
        let take = |number| {
            let turns = turns.clone();
            Box::pin(async move { turns.take(&client(number)).await })
        };
        let mut of_one: Vec<_> = (0..10).map(|_| take(1)).collect();
        let mut got: Vec<Turn> = of_one.iter_mut().filter_map(|wait| wait.now_or_never()).collect();
        assert_eq!(got.len(), 2, "two of its own");
        let mut of_two = take(2);
        got.extend((&mut of_two).now_or_never());
        assert_eq!(got.len(), 3, "the third is another's, although eight came before");
        let mut of_three = take(3);
        assert!((&mut of_three).now_or_never().is_none(), "three in all");
        got.remove(0);
        let next = of_one.iter_mut().skip(2).find_map(|wait| wait.now_or_never());
        assert!(next.is_some(), "the longest wait is over first");
        assert!((&mut of_three).now_or_never().is_none());
        drop((got, next, of_one));
        assert!((&mut of_three).now_or_never().is_some(), "those who have left are passed over");
    }

    #[test]
    fn turns_that_are_given_up_or_given_back_are_not_lost() {
        let turns = Turns::new(1, 1);
        let first = turns.take(&client(1)).now_or_never().expect("a turn");
        let two = client(2);
        let mut waits = Box::pin(turns.take(&two));
        assert!((&mut waits).now_or_never().is_none());
        drop(first);
        // Handed out, and never taken.
        drop(waits);
        assert!(turns.take(&client(3)).now_or_never().is_some());
        let state = turns.0.lock();
        assert_eq!((state.running, state.of_client.len(), state.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn more_at_run_time_lets_those_who_wait_go_on() {
        let turns = Turns::new(1, 0);
        let one = client(1);
        let _first = turns.take(&one).now_or_never().expect("a turn");
        let mut waits = Box::pin(turns.take(&one));
        assert!((&mut waits).now_or_never().is_none());
        turns.set(2, 0);
        assert!((&mut waits).now_or_never().is_some());
    }
}
