//! Turns: so many at once in all, so many of each client, and the others wait: each client's in their order, and the clients
//! by turns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::ClientKey;

/// So many waits of a client are looked through for those that were given up, each time that as many have come.
const GIVEN_UP_LOOKED_FOR: usize = 256;

/// Cheap to clone. Who waits is bounded by who can ask: each reader waits for one turn at most.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    most: usize,
    most_of_client: usize,
    running: usize,
    /// Those who have a turn or wait for one.
    clients: HashMap<ClientKey, Client>,
    /// Those who wait and may have one more, each once: it goes round.
    ready: VecDeque<ClientKey>,
}

#[derive(Debug, Default)]
struct Client {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    is_ready: bool,
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
        let (clients, ready) = (HashMap::new(), VecDeque::new());
        let state = State { most: 0, most_of_client: 0, running: 0, clients, ready };
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
            let clients: Vec<ClientKey> = state.clients.keys().cloned().collect();
            clients.iter().for_each(|client| state.line_up(client));
        }
        self.hand_out();
    }

    /// Waits for a turn. Given up by dropping the wait.
    pub async fn take(&self, client: &ClientKey) -> Turn {
        let (give, given) = oneshot::channel();
        self.0.lock().wait(client, give);
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
    fn wait(&mut self, client: &ClientKey, give: oneshot::Sender<Turn>) {
        let of_client = self.clients.entry(client.clone()).or_default();
        of_client.waiting.push_back(give);
        if of_client.waiting.len().is_multiple_of(GIVEN_UP_LOOKED_FOR) {
            of_client.waiting.retain(|give| !give.is_closed());
        }
        self.line_up(client);
    }

    /// Lets it go round, where it waits and may have one more; forgets it, where it neither waits nor has any.
    fn line_up(&mut self, client: &ClientKey) {
        let Some(of_client) = self.clients.get_mut(client) else { return };
        if of_client.waiting.is_empty() && of_client.running == 0 {
            self.clients.remove(client);
        } else if !of_client.is_ready && !of_client.waiting.is_empty() && of_client.running < self.most_of_client {
            of_client.is_ready = true;
            self.ready.push_back(client.clone());
        }
    }

    /// Who is next, and has the turn from now on.
    fn next(&mut self) -> Option<(ClientKey, oneshot::Sender<Turn>)> {
        while self.running < self.most {
            let client = self.ready.pop_front()?;
            let Some(of_client) = self.clients.get_mut(&client) else { continue };
            of_client.is_ready = false;
            let may = of_client.running < self.most_of_client;
            while may && let Some(give) = of_client.waiting.pop_front() {
                if !give.is_closed() {
                    of_client.running += 1;
                    self.running += 1;
                    self.line_up(&client);
                    return Some((client, give));
                }
            }
            self.line_up(&client);
        }
        None
    }

    fn give_back(&mut self, client: &ClientKey) {
        self.running = self.running.saturating_sub(1);
        if let Some(of_client) = self.clients.get_mut(client) {
            of_client.running = of_client.running.saturating_sub(1);
        }
        self.line_up(client);
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
        got.extend((&mut of_three).now_or_never());
        assert_eq!(got.len(), 3, "it is the turn of the one who has none");
        assert!(of_one.iter_mut().skip(2).all(|wait| wait.now_or_never().is_none()));
        got.remove(0);
        let next: Vec<Turn> = of_one.iter_mut().skip(2).filter_map(|wait| wait.now_or_never()).collect();
        assert_eq!(next.len(), 1, "and then of the longest wait of the first");
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
        assert_eq!((state.running, state.clients.len(), state.ready.len()), (0, 0, 0));
    }

    #[test]
    fn waits_that_were_given_up_do_not_pile_up() {
        let turns = Turns::new(1, 1);
        let one = client(1);
        let first = turns.take(&one).now_or_never().expect("a turn");
        for _ in 0..10 * GIVEN_UP_LOOKED_FOR {
            assert!(turns.take(&one).now_or_never().is_none());
        }
        assert!(turns.0.lock().clients[&one].waiting.len() <= GIVEN_UP_LOOKED_FOR);
        drop(first);
        assert!(turns.take(&one).now_or_never().is_some());
        assert!(turns.0.lock().clients.is_empty());
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
