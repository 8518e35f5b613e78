//! What is open at once, of each client and in all. One count for the whole host, given back by drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::model::ClientKey;

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Concurrency(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Clients that have something open, and nobody else: what bounds all bounds this.
    of_client: DashMap<ClientKey, usize>,
    all: AtomicUsize,
}

/// Why there is no place, and what is in use.
#[derive(Debug, PartialEq, Eq)]
pub enum Full {
    OfClient(usize),
    OfAll,
}

/// One thing that is open. Given back when dropped, however it ended.
#[derive(Debug)]
pub struct Place {
    client: ClientKey,
    counts: Arc<Counts>,
}

impl Concurrency {
    /// `per_client`: 0 is no limit. `total`: exactly so many, and of 0 there is none.
    pub fn enter(&self, client: &ClientKey, per_client: usize, total: usize) -> Result<Place, Full> {
        let counts = &self.0;
        {
            let mut open = counts.of_client.entry(client.clone()).or_default();
            if per_client > 0 && *open >= per_client {
                return Err(Full::OfClient(*open));
            }
            *open += 1;
        }
        // From here on dropped is given back: but not what of all was not taken.
        let of_all =
            counts.all.fetch_update(Ordering::AcqRel, Ordering::Acquire, |all| (all < total).then_some(all + 1));
        if of_all.is_err() {
            counts.leave(client);
            return Err(Full::OfAll);
        }
        Ok(Place { client: client.clone(), counts: counts.clone() })
    }

    pub fn in_use(&self) -> usize {
        self.0.all.load(Ordering::Acquire)
    }
}

impl Counts {
    fn leave(&self, client: &ClientKey) {
        self.of_client.remove_if_mut(client, |_, open| {
            *open -= 1;
            *open == 0
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.leave(&self.client);
        self.counts.all.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> ClientKey {
        ClientKey::of(std::net::Ipv4Addr::from_bits(number).into(), 32, 64)
    }

    #[test]
    fn a_client_has_so_many_and_all_together_so_many_and_what_is_dropped_comes_back() {
        let concurrency = Concurrency::default();
        let enter = |number| concurrency.enter(&client(number), 2, 3);
        let mut places = vec![enter(1).expect("a place"), enter(1).expect("a place")];
        assert_eq!(enter(1).expect_err("full"), Full::OfClient(2));
        places.push(enter(2).expect("a place"));
        assert_eq!(enter(2).expect_err("full"), Full::OfAll);
        assert_eq!(enter(3).expect_err("full"), Full::OfAll);
        assert_eq!((concurrency.in_use(), concurrency.0.of_client.len()), (3, 2));
        places.pop();
        assert!(enter(2).is_ok() && enter(3).is_ok());
        places.clear();
        assert_eq!((concurrency.in_use(), concurrency.0.of_client.len()), (0, 0), "nothing is left of who left");
    }

    #[test]
    fn a_refusal_gives_nothing_back_that_is_anothers() {
        let concurrency = Concurrency::default();
        let _place = concurrency.enter(&client(1), 1, 1).expect("a place");
        for _ in 0..100 {
            assert!(concurrency.enter(&client(1), 1, 1).is_err());
            assert!(concurrency.enter(&client(2), 1, 1).is_err());
        }
        assert_eq!(concurrency.in_use(), 1);
    }

    #[test]
    fn who_has_no_limit_has_that_of_all_and_of_none_there_is_none() {
        let concurrency = Concurrency::default();
        let places: Vec<Place> = std::iter::from_fn(|| concurrency.enter(&client(1), 0, 7).ok()).take(100).collect();
        assert_eq!(places.len(), 7);
        assert_eq!(Concurrency::default().enter(&client(1), 0, 0).expect_err("none"), Full::OfAll);
    }

    #[test]
    fn many_threads_get_exactly_as_many_as_there_are() {
        let concurrency = Concurrency::default();
        let places: Vec<Place> = std::thread::scope(|scope| {
            let enter =
                || (0..50).filter_map(|_| concurrency.enter(&client(1), 5, usize::MAX).ok()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(enter)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!((places.len(), concurrency.in_use()), (5, 5));
    }
}
